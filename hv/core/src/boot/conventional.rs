//! The page of conventional memory that further CPUs are started from: one that neither the BIOS nor EFI goes on to use.

use core::ops::Range;

use crate::mem::addr::{Hpa, PAGE_SIZE};
use crate::mem::ranges::RangeSet;

/// The BIOS's data, where it says how much memory is not its own.
pub const BIOS_DATA: Range<Hpa> = Hpa(0x400)..Hpa(0x500);
/// In it, the segment of the extended BIOS data area.
const EXTENDED_AREA: usize = 0xe;
/// In it, how many KiB of memory begin at 0.
const BASE_MEMORY: usize = 0x13;

/// Where the BIOS's memory can begin: the words mean nothing on some machines, as with EFI. Where they say nothing, its last page
/// below 640 KiB is the BIOS's.
const PLAUSIBLE: Range<u64> = 0x2_0000..0x9_f000;

/// What a start-up IPI can lead to, without the interrupt vectors and the BIOS's data.
const FIRST: Hpa = Hpa(0x1000);

/// Where the BIOS's own memory begins, by what it says in [`BIOS_DATA`].
pub fn bios_start(data: &[u8]) -> Hpa {
    let word =
        |at: usize| data.get(at..at + 2).map_or(0, |word| u64::from(word[0]) | u64::from(word[1]) << 8);
    let says = [word(BASE_MEMORY) << 10, word(EXTENDED_AREA) << 4];
    Hpa(says.into_iter().filter(|start| PLAUSIBLE.contains(start)).min().unwrap_or(PLAUSIBLE.end))
}

/// A page of `free` memory below `end`. What EFI's boot services had is taken only if there is nothing else, since some firmware
/// goes on to use it.
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
    fn the_lower_word_counts_if_it_can_be_right() {
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
    fn the_highest_page_that_nobody_claims() {
        let free: RangeSet = [Hpa(0)..Hpa(0x9_f000)].into_iter().collect();
        let none = || [].into_iter();
        assert_eq!(page(free.clone(), none(), Hpa(0x9_f000)), Some(Hpa(0x9_e000)));
        assert_eq!(page(free.clone(), none(), Hpa(0x9_dc00)), Some(Hpa(0x9_c000)), "whole pages");
        let services = || [Hpa(0x8_0000)..Hpa(0xa_0000)].into_iter();
        assert_eq!(page(free.clone(), services(), Hpa(0x9_f000)), Some(Hpa(0x7_f000)));
        let all = [Hpa(0)..Hpa(0xa_0000)].into_iter();
        assert_eq!(page(free, all, Hpa(0x9_f000)), Some(Hpa(0x9_e000)), "better than none");
        let low: RangeSet = [Hpa(0)..Hpa(0x1000)].into_iter().collect();
        assert_eq!(page(low, none(), Hpa(0x9_f000)), None, "not the BIOS's data");
    }
}
