//! The hand-over block: boot_params, a GDT, the command line, the EFI memory map and the e820 entries that do not fit
//! into boot_params. The guest finds it in its memory when it starts.

use core::ops::Range;

use super::boot_params;
use crate::mem::addr::{Hpa, PAGE_SIZE};

/// Selector of the flat 32-bit code segment in the GDT; the boot protocol calls it __BOOT_CS.
pub const CODE_SELECTOR: u16 = 0x10;
/// Selector of the flat 32-bit data segment in the GDT; the boot protocol calls it __BOOT_DS.
pub const DATA_SELECTOR: u16 = 0x18;

/// Two null descriptors, then a code and a data segment: 32-bit, base 0, limit 4 GiB, marked as accessed.
const GDT: [u64; 4] = [0, 0, 0x00cf_9b00_0000_ffff, 0x00cf_9300_0000_ffff];

/// Limit of the GDT in bytes, as GDTR takes it: its size less one.
pub const GDT_LIMIT: u16 = size_of_val(&GDT) as u16 - 1;

/// Offset of the command line in the block, in bytes.
const COMMAND_LINE: usize = boot_params::SIZE + size_of_val(&GDT);

/// Sizes in bytes of the parts whose size varies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sizes {
    /// Size of the command line, without the zero byte at its end.
    pub command_line: usize,
    /// Size of the EFI memory map.
    pub efi_map: usize,
    /// Size of the setup_data record: [`boot_params::more_regions_size`].
    pub setup_data: usize,
}

/// Where each part of a hand-over block lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    base: Hpa,
    efi_map: Range<usize>,
    setup_data: usize,
    size: usize,
}

impl Layout {
    /// Lays out a block at `base`, which is page-aligned, for parts of these sizes.
    pub const fn new(base: Hpa, sizes: Sizes) -> Self {
        let start = (COMMAND_LINE + sizes.command_line + 1).next_multiple_of(8);
        let efi_map = start..start + sizes.efi_map;
        let setup_data = efi_map.end.next_multiple_of(8);
        let size = (setup_data + sizes.setup_data).next_multiple_of(PAGE_SIZE as usize);
        Self { base, efi_map, setup_data, size }
    }

    /// Returns the size of the block in bytes, a whole number of pages.
    pub const fn size(&self) -> u64 {
        self.size as u64
    }

    /// Returns the address of boot_params.
    pub const fn boot_params(&self) -> Hpa {
        self.base
    }

    /// Returns the address of the GDT.
    pub fn gdt(&self) -> Hpa {
        self.base + boot_params::SIZE as u64
    }

    /// Returns the address of the command line.
    pub fn command_line(&self) -> Hpa {
        self.base + COMMAND_LINE as u64
    }

    /// Returns the addresses of the EFI memory map.
    pub fn efi_map(&self) -> Range<Hpa> {
        self.base + self.efi_map.start as u64..self.base + self.efi_map.end as u64
    }

    /// Returns the address of the setup_data record.
    pub fn setup_data(&self) -> Hpa {
        self.base + self.setup_data as u64
    }

    /// Passes the GDT and the command line, with the zero byte at its end, to `put`, each piece with its address.
    pub fn write(&self, command_line: &[u8], mut put: impl FnMut(Hpa, &[u8])) {
        put(self.gdt(), GDT.map(u64::to_le_bytes).as_flattened());
        put(self.command_line(), command_line);
        put(self.command_line() + command_line.len() as u64, &[0]);
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    #[test]
    fn parts_are_aligned_and_do_not_overlap() {
        let text = b"console=ttyS0,115200";
        let sizes = Sizes { command_line: text.len(), efi_map: 96, setup_data: 36 };
        let layout = Layout::new(Hpa(0x9_0000), sizes);
        assert_eq!(layout.size(), 2 * PAGE_SIZE);
        let mut written: Vec<(u64, Vec<u8>)> = Vec::new();
        layout.write(text, |at, bytes| written.push((at.0, bytes.to_vec())));
        let (gdt, code) = (&written[0], usize::from(CODE_SELECTOR));
        assert_eq!(gdt.0, layout.boot_params().0 + PAGE_SIZE);
        assert_eq!(gdt.1[code..code + 8], 0x00cf_9b00_0000_ffffu64.to_le_bytes());
        assert_eq!(written[1..], [(0x9_1020, text.to_vec()), (0x9_1034, vec![0])]);
        let efi_map = layout.efi_map();
        assert_eq!(efi_map.end, efi_map.start + 96);
        written.push((efi_map.start.0, vec![0; sizes.efi_map]));
        written.push((layout.setup_data().0, vec![0; sizes.setup_data]));
        for pair in written.windows(2) {
            assert!(pair[0].0 + pair[0].1.len() as u64 <= pair[1].0, "{pair:x?}");
        }
        let last = written.last().unwrap();
        assert!(last.0 + last.1.len() as u64 <= 0x9_0000 + layout.size());
        assert!(efi_map.start.is_aligned(8) && layout.setup_data().is_aligned(8));
    }
}
