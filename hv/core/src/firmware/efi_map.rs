//! The EFI memory map: which of it is RAM for the guest, and the copy that the guest is handed. UEFI Specification
//! 2.10, 7.2.3 "EFI_BOOT_SERVICES.GetMemoryMap()".

use core::ops::Range;

use crate::mem::addr::{Hpa, PAGE_SIZE};
use crate::mem::map::{MemoryKind, MemoryMap, MemoryRegion};

/// Size in bytes of the part of a descriptor that is known; descriptors may be longer.
const DESCRIPTOR: usize = 40;
/// EfiReservedMemoryType.
const RESERVED: u32 = 0;
/// EFI_MEMORY_SP, an attribute of memory with a specific purpose, which is left to the driver that knows it.
const SPECIFIC_PURPOSE: u64 = 1 << 18;
/// E820_TYPE_SOFT_RESERVED, an e820 type that only Linux defines.
const SOFT_RESERVED: u32 = 0xefff_ffff;

/// The known part of an EFI_MEMORY_DESCRIPTOR.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Descriptor {
    kind: u32,
    start: u64,
    pages: u64,
    attributes: u64,
}

impl Descriptor {
    fn read(bytes: &[u8]) -> Option<Self> {
        let word = |at: usize| bytes.get(at..)?.first_chunk().map(|chunk| u64::from_le_bytes(*chunk));
        Some(Self { kind: word(0)? as u32, start: word(8)?, pages: word(24)?, attributes: word(32)? })
    }

    fn range(&self) -> Range<Hpa> {
        let end = self.pages.checked_mul(PAGE_SIZE).and_then(|size| self.start.checked_add(size));
        Hpa(self.start)..Hpa(end.unwrap_or(u64::MAX))
    }

    /// Returns the e820 type as the Linux EFI stub chooses it. Returns `None` for unknown types, and for unaccepted
    /// memory of confidential guests, both of which the stub leaves out.
    const fn memory_kind(&self) -> Option<MemoryKind> {
        Some(match self.kind {
            // Loader and boot services code and data, and conventional memory.
            1..=4 | 7 if self.attributes & SPECIFIC_PURPOSE != 0 => MemoryKind::Other(SOFT_RESERVED),
            1..=4 | 7 => MemoryKind::Usable,
            // Runtime services code and data, memory-mapped I/O and PAL code.
            RESERVED | 5 | 6 | 11..=13 => MemoryKind::Reserved,
            8 => MemoryKind::Unusable,
            9 => MemoryKind::AcpiReclaimable,
            10 => MemoryKind::AcpiNvs,
            14 => MemoryKind::Other(7), // persistent memory
            _ => return None,
        })
    }
}

/// Returns the descriptors of `map`, each of `size` bytes, with their bytes; none if `size` is too small.
fn descriptors(map: &[u8], size: u32) -> impl Iterator<Item = (&[u8], Descriptor)> + Clone {
    let size = size as usize;
    let whole = if size >= DESCRIPTOR { map } else { &[] };
    whole.chunks_exact(size.max(1)).filter_map(|bytes| Descriptor::read(bytes).map(|read| (bytes, read)))
}

/// Returns the EFI memory map `map`, whose descriptors have `size` bytes, as an e820 map.
pub fn memory_map(map: &[u8], size: u32) -> MemoryMap<'_> {
    let whole = if size as usize >= DESCRIPTOR { map } else { &[] };
    MemoryMap::new(whole, size as usize, |bytes| {
        let descriptor = Descriptor::read(bytes)?;
        descriptor.memory_kind().map(|kind| MemoryRegion { range: descriptor.range(), kind })
    })
}

/// Returns the memory of boot services. Some firmware uses it until the guest has called SetVirtualAddressMap().
pub fn boot_services(map: &[u8], size: u32) -> impl Iterator<Item = Range<Hpa>> + Clone {
    let kept = descriptors(map, size).filter(|(_, descriptor)| [3, 4].contains(&descriptor.kind));
    kept.map(|(_, descriptor)| descriptor.range())
}

/// Passes the EFI memory map to `put`, piece by piece, with the ranges in `hidden` marked as reserved. `hidden` holds
/// whole pages.
pub fn hide(map: &[u8], size: u32, hidden: &[Range<Hpa>], mut put: impl FnMut(&[u8])) {
    for (bytes, descriptor) in descriptors(map, size) {
        let Range { mut start, end } = descriptor.range();
        let next = |start: Hpa| {
            let reaching = hidden.iter().filter(|hidden| !hidden.is_empty() && start < hidden.end);
            reaching.filter(|hidden| hidden.start < end).min_by_key(|hidden| hidden.start)
        };
        if start >= end || next(start).is_none() {
            put(bytes);
            continue;
        }
        let (head, rest) = bytes.split_at(DESCRIPTOR);
        while start < end {
            let (to, kind) = match next(start) {
                None => (end, descriptor.kind),
                Some(hidden) if start < hidden.start => (hidden.start, descriptor.kind),
                Some(hidden) => (hidden.end.min(end), RESERVED),
            };
            let mut head: [u8; DESCRIPTOR] = core::array::from_fn(|at| head.get(at).copied().unwrap_or(0));
            head[..4].copy_from_slice(&kind.to_le_bytes());
            head[8..16].copy_from_slice(&start.0.to_le_bytes());
            head[24..32].copy_from_slice(&((to.0 - start.0) / PAGE_SIZE).to_le_bytes());
            put(&head);
            put(rest);
            start = to;
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    const SIZE: usize = 48;

    fn map(descriptors: &[(u32, u64, u64)]) -> Vec<u8> {
        let bytes = |(kind, start, pages): &(u32, u64, u64)| {
            let mut bytes = vec![0x77; SIZE];
            bytes[..4].copy_from_slice(&kind.to_le_bytes());
            bytes[8..16].copy_from_slice(&start.to_le_bytes());
            bytes[24..32].copy_from_slice(&pages.to_le_bytes());
            bytes[32..40].copy_from_slice(&0xfu64.to_le_bytes());
            bytes
        };
        descriptors.iter().flat_map(bytes).collect()
    }

    fn listed(map: &[u8]) -> Vec<(u32, u64, u64)> {
        descriptors(map, SIZE as u32).map(|(_, one)| (one.kind, one.start, one.pages)).collect()
    }

    #[test]
    fn efi_types_become_e820_types() {
        let kinds: Vec<_> = memory_map(
            &map(&[
                (7, 0x1000, 1),
                (2, 0x2000, 1),
                (9, 0x3000, 1),
                (10, 0x4000, 1),
                (5, 0x5000, 1),
                (11, 0x6000, 1),
                (15, 0x7000, 1), // unaccepted memory is left out
            ]),
            SIZE as u32,
        )
        .iter()
        .map(|region| region.kind.to_raw())
        .collect();
        assert_eq!(kinds, [1, 1, 3, 4, 2, 2]);
        assert!(memory_map(&[0; 96], 8).iter().next().is_none(), "descriptors have at least 40 bytes");
    }

    #[test]
    fn boot_services_code_and_data_are_found() {
        let map = map(&[(3, 0x1000, 1), (4, 0x2000, 2), (7, 0x4000, 1)]);
        let kept: Vec<_> = boot_services(&map, SIZE as u32).collect();
        assert_eq!(kept, [Hpa(0x1000)..Hpa(0x2000), Hpa(0x2000)..Hpa(0x4000)]);
    }

    #[test]
    fn several_ranges_in_any_order_are_hidden() {
        let hidden = [Hpa(0x8000)..Hpa(0xa000), Hpa(0x2000)..Hpa(0x3000)];
        let mut shown = Vec::new();
        hide(&map(&[(7, 0x1000, 8), (4, 0x9000, 4)]), SIZE as u32, &hidden, |bytes| {
            shown.extend_from_slice(bytes);
        });
        let expected =
            [(7, 0x1000, 1), (0, 0x2000, 1), (7, 0x3000, 5), (0, 0x8000, 1), (0, 0x9000, 1), (4, 0xa000, 3)];
        assert_eq!(listed(&shown), expected);
        assert!(
            shown.chunks(SIZE).all(|bytes| bytes[40..] == [0x77; 8]),
            "the unknown part of a descriptor is copied"
        );
    }

    proptest! {
        #[test]
        fn hidden_pages_are_reserved_and_other_pages_keep_their_type(
            pieces in proptest::collection::vec((0u32..15, 1u64..8), 1..8),
            start in 0u64..20,
            length in 1u64..10,
        ) {
            let mut next = 0;
            let before: Vec<_> = pieces
                .into_iter()
                .map(|(kind, pages)| {
                    let start = next;
                    next += pages;
                    (kind, start * PAGE_SIZE, pages)
                })
                .collect();
            let hidden = Hpa(start * PAGE_SIZE)..Hpa((start + length) * PAGE_SIZE);
            let mut shown = Vec::new();
            hide(&map(&before), SIZE as u32, core::slice::from_ref(&hidden), |bytes| shown.extend_from_slice(bytes));
            let after = listed(&shown);
            let kind_at = |list: &[(u32, u64, u64)], page: u64| {
                let inside = |(_, start, pages): &&(u32, u64, u64)| {
                    (*start..start + pages * PAGE_SIZE).contains(&(page * PAGE_SIZE))
                };
                list.iter().filter(inside).map(|(kind, ..)| *kind).collect::<Vec<_>>()
            };
            for page in 0..next {
                let reserved = hidden.contains(&Hpa(page * PAGE_SIZE));
                let expected = if reserved { vec![RESERVED] } else { kind_at(&before, page) };
                prop_assert_eq!(kind_at(&after, page), expected);
            }
            prop_assert!(after.len() <= before.len() * 3);
        }
    }
}
