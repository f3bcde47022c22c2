//! Finds the page below 1 MiB from which further CPUs are started: one that neither the BIOS nor EFI still uses.

use core::ops::Range;

use crate::mem::addr::{Hpa, PAGE_SIZE};
use crate::mem::ranges::RangeSet;

/// The BIOS data area, which says where the BIOS's memory begins.
pub const BIOS_DATA: Range<Hpa> = Hpa(0x400)..Hpa(0x500);
/// Offset of the segment of the extended BIOS data area.
const EXTENDED_AREA: usize = 0xe;
/// Offset of the size of base memory in KiB.
const BASE_MEMORY: usize = 0x13;

/// Addresses at which the BIOS's memory can begin. On some machines, such as those with EFI, the words mean nothing.
/// Without a plausible word, the BIOS's memory is taken to begin at the last page below 640 KiB.
const PLAUSIBLE: Range<u64> = 0x2_0000..0x9_f000;

/// The lowest page that may be chosen. The page below holds the interrupt vectors and the BIOS data area.
const FIRST: Hpa = Hpa(0x1000);

/// Returns where the BIOS's own memory begins according to `data`, the bytes of [`BIOS_DATA`]: the lower one of two
/// plausible words.
pub fn bios_start(data: &[u8]) -> Hpa {
    let word =
        |at: usize| data.get(at..at + 2).map_or(0, |word| u64::from(word[0]) | u64::from(word[1]) << 8);
    let says = [word(BASE_MEMORY) << 10, word(EXTENDED_AREA) << 4];
    Hpa(says.into_iter().filter(|start| PLAUSIBLE.contains(start)).min().unwrap_or(PLAUSIBLE.end))
}

/// Returns the highest page of `free` memory below `end`, or `None` if there is none. Memory of EFI boot services is
/// taken only if there is no other, because some firmware still uses it.
pub fn page(
    mut free: RangeSet,
    boot_services: impl IntoIterator<Item = Range<Hpa>>,
    end: Hpa,
) -> Option<Hpa> {
    let reach = FIRST..end;
    let any = free.highest_fit(PAGE_SIZE, PAGE_SIZE, &reach);
    boot_services.into_iter().for_each(|range| free.remove(&range));
    free.highest_fit(PAGE_SIZE, PAGE_SIZE, &reach).or(any)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(base_kib: u16, extended_segment: u16) -> [u8; 0x100] {
        let mut data = [0; 0x100];
        data[0xe..0x10].copy_from_slice(&extended_segment.to_le_bytes());
        data[0x13..0x15].copy_from_slice(&base_kib.to_le_bytes());
        data
    }

    #[test]
    fn lower_plausible_word_is_used() {
        for (base, extended, start) in [
            (639, 0x9fc0, 0x9_f000),
            (631, 0x9dc0, 0x9_dc00),
            (512, 0x9fc0, 0x8_0000),
            (636, 0x9d80, 0x9_d800),
            (0, 0, 0x9_f000),
            (0, 0x9d80, 0x9_d800),
            (0xffff, 0xffff, 0x9_f000),
            (1, 0x40, 0x9_f000),
        ] {
            assert_eq!(bios_start(&data(base, extended)), Hpa(start), "{base} KiB, {extended:#x}");
        }
        assert_eq!(bios_start(&[]), Hpa(0x9_f000));
    }

    #[test]
    fn highest_unused_page_is_chosen() {
        let free: RangeSet = [Hpa(0)..Hpa(0x9_f000)].into_iter().collect();
        let none = || [].into_iter();
        assert_eq!(page(free.clone(), none(), Hpa(0x9_f000)), Some(Hpa(0x9_e000)));
        assert_eq!(page(free.clone(), none(), Hpa(0x9_dc00)), Some(Hpa(0x9_c000)), "only whole pages");
        let services = || [Hpa(0x8_0000)..Hpa(0xa_0000)].into_iter();
        assert_eq!(page(free.clone(), services(), Hpa(0x9_f000)), Some(Hpa(0x7_f000)));
        let all = [Hpa(0)..Hpa(0xa_0000)].into_iter();
        assert_eq!(page(free, all, Hpa(0x9_f000)), Some(Hpa(0x9_e000)), "boot services are the last resort");
        let low: RangeSet = [Hpa(0)..Hpa(0x1000)].into_iter().collect();
        assert_eq!(page(low, none(), Hpa(0x9_f000)), None, "page 0 holds the BIOS's data");
    }
}
