//! The format of nested page tables, the second stage of AMD-V. The entries have the format of long-mode paging, and
//! select their memory types from Vidar's PAT. AMD APM Vol. 2, 15.25 "Nested Paging", 15.25.8 "Combining Memory Types,
//! MTRRs" and 5.3 "Long-Mode Page Translation".

use crate::mem::addr::{Hpa, PageSize};
use crate::mem::mtrr::MemoryType;
use crate::mem::pat;
use crate::mem::stage2::{Format, Level, PageAccess};

/// The format of nested page-table entries.
pub struct Npt;

const PRESENT: u64 = 1 << 0;
const WRITABLE: u64 = 1 << 1;
/// The nested walk treats every access of the guest as one of user mode.
const USER: u64 = 1 << 2;
/// Accessed. Vidar sets it in every entry, so that the CPU never writes to the tables.
const ACCESSED: u64 = 1 << 5;
/// Dirty. Vidar sets it in every leaf, so that the CPU never writes to the tables.
const DIRTY: u64 = 1 << 6;
/// The entry of a PDPT or PD maps a page.
const LARGE: u64 = 1 << 7;
const NO_EXECUTE: u64 = 1 << 63;
/// The address of a table or a page, bits 51:12.
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// The position of PWT and PCD, bits 4:3, which are the low two bits of the index into the PAT.
const PAT_LOW_SHIFT: u32 = 3;
/// The high bit of the index into the PAT: bit 7 in the entry of a 4 KiB page, and bit 12 in that of a large page,
/// where bit 7 is PS.
const PAT_HIGH_SMALL: u64 = 1 << 7;
const PAT_HIGH_LARGE: u64 = 1 << 12;

impl Format for Npt {
    fn table(table: Hpa) -> u64 {
        table.0 & ADDRESS | PRESENT | WRITABLE | USER | ACCESSED
    }

    /// A present page can always be read, even if `access` lacks [`PageAccess::READ`].
    fn leaf(page: Hpa, size: PageSize, memory_type: MemoryType, access: PageAccess) -> u64 {
        let index = pat::index(memory_type);
        let (large, high) =
            if size == PageSize::Size4K { (0, PAT_HIGH_SMALL) } else { (LARGE, PAT_HIGH_LARGE) };
        let bit = |set: bool, bit: u64| if set { bit } else { 0 };
        page.0 & ADDRESS
            | (PRESENT | USER | ACCESSED | DIRTY | large)
            | (index & 3) << PAT_LOW_SHIFT
            | bit(index & 4 != 0, high)
            | bit(access.contains(PageAccess::WRITE), WRITABLE)
            | bit(!access.contains(PageAccess::EXECUTE), NO_EXECUTE)
    }

    fn is_present(entry: u64) -> bool {
        entry & PRESENT != 0
    }

    fn is_leaf(entry: u64, level: Level) -> bool {
        match level {
            Level::Pml4 => false,
            Level::Pdpt | Level::Pd => entry & LARGE != 0,
            Level::Pt => true,
        }
    }

    fn address(entry: u64) -> Hpa {
        Hpa(entry & ADDRESS)
    }

    fn access(entry: u64) -> PageAccess {
        let mut access = PageAccess::READ;
        access.set(PageAccess::WRITE, entry & WRITABLE != 0);
        access.set(PageAccess::EXECUTE, entry & NO_EXECUTE == 0);
        access
    }

    fn memory_type(entry: u64, size: PageSize) -> MemoryType {
        let high = if size == PageSize::Size4K { PAT_HIGH_SMALL } else { PAT_HIGH_LARGE };
        let index = entry >> PAT_LOW_SHIFT & 3 | if entry & high != 0 { 4 } else { 0 };
        pat::memory_type(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [MemoryType; 5] = [
        MemoryType::WriteBack,
        MemoryType::WriteThrough,
        MemoryType::Uncacheable,
        MemoryType::WriteCombining,
        MemoryType::WriteProtected,
    ];

    #[test]
    fn entries_have_the_format_of_the_manual() {
        let all = PageAccess::all();
        assert_eq!(Npt::table(Hpa(0x1234_5000)), 0x1234_5027);
        assert_eq!(Npt::leaf(Hpa(0x5000), PageSize::Size4K, MemoryType::WriteBack, all), 0x5067);
        assert_eq!(Npt::leaf(Hpa(0x20_0000), PageSize::Size2M, MemoryType::Uncacheable, all), 0x20_00ff);
        assert_eq!(Npt::leaf(Hpa(0x5000), PageSize::Size4K, MemoryType::WriteProtected, all), 0x50ef);
        assert_eq!(
            Npt::leaf(Hpa(0x4000_0000), PageSize::Size1G, MemoryType::WriteCombining, PageAccess::READ),
            1 << 63 | 0x4000_10e5
        );
    }

    #[test]
    fn decoding_an_entry_returns_what_was_encoded() {
        assert!(!Npt::is_present(0) && !Npt::is_present(0xffff_f000));
        for size in PageSize::DESCENDING {
            for memory_type in ALL {
                let page = Hpa(0x000f_ffff_c000_0000);
                let entry = Npt::leaf(page, size, memory_type, PageAccess::READ);
                assert!(Npt::is_present(entry));
                assert_eq!(Npt::address(entry).align_down(size.bytes()), page);
                assert_eq!(Npt::memory_type(entry, size), memory_type);
                assert!(Npt::is_leaf(entry, Level::Pt));
                assert!(size == PageSize::Size4K || Npt::is_leaf(entry, Level::Pd));
            }
        }
        assert!(!Npt::is_leaf(Npt::table(Hpa(0x1000)), Level::Pml4));
        assert!(!Npt::is_leaf(Npt::table(Hpa(0x1000)), Level::Pd));
    }
}
