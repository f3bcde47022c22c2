//! The format of extended page tables, the second stage of VT-x. Intel SDM Vol. 3C, 29.3.2 "EPT Translation Mechanism".

use crate::mem::addr::{Hpa, PageSize};
use crate::mem::mtrr::MemoryType;
use crate::mem::stage2::{Format, Level, PageAccess};

/// The format of EPT entries.
pub struct Ept;

/// Read, write and execute access: bits 0, 1 and 2. An entry with none of them is not present.
const ACCESS: u64 = 0b111;
/// The lowest bit of the EPT memory type of a leaf, bits 5:3.
const MEMORY_TYPE_SHIFT: u32 = 3;
/// The entry of a PDPT or PD maps a page.
const LARGE: u64 = 1 << 7;
/// The address of a table or a page, bits 51:12.
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

// The bits of `PageAccess` have the positions that EPT gives them.
const _: () =
    assert!(PageAccess::READ.bits() == 1 && PageAccess::WRITE.bits() == 2 && PageAccess::EXECUTE.bits() == 4);

impl Format for Ept {
    fn table(table: Hpa) -> u64 {
        table.0 & ADDRESS | ACCESS
    }

    /// "Ignore PAT" (bit 6) is 0, so that the CPU combines the memory type with that of the guest's own PAT: Intel SDM
    /// Vol. 3C, 29.3.7.2 "Memory Type Used for Translated Guest-Physical Addresses".
    fn leaf(page: Hpa, size: PageSize, memory_type: MemoryType, access: PageAccess) -> u64 {
        let large = if size == PageSize::Size4K { 0 } else { LARGE };
        page.0 & ADDRESS | large | (memory_type as u64) << MEMORY_TYPE_SHIFT | u64::from(access.bits())
    }

    fn is_present(entry: u64) -> bool {
        entry & ACCESS != 0
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
        PageAccess::from_bits_truncate((entry & ACCESS) as u8)
    }

    fn memory_type(entry: u64, _size: PageSize) -> MemoryType {
        // A reserved memory type is an EPT misconfiguration. Vidar never writes one.
        MemoryType::from_raw((entry >> MEMORY_TYPE_SHIFT & 0b111) as u8).unwrap_or(MemoryType::Uncacheable)
    }
}

/// Returns the EPT pointer for the tables whose PML4 table is at `root`: four levels, write-back as the memory type of
/// the tables, and no accessed and dirty flags. Intel SDM Vol. 3C, 25.6.11 "Extended-Page-Table Pointer (EPTP)".
pub const fn pointer(root: Hpa) -> u64 {
    const WALK_LENGTH_LESS_1: u64 = 3;
    root.0 & ADDRESS | WALK_LENGTH_LESS_1 << 3 | MemoryType::WriteBack as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_have_the_format_of_the_manual() {
        let all = PageAccess::all();
        assert_eq!(Ept::table(Hpa(0x1234_5000)), 0x1234_5007);
        assert_eq!(Ept::leaf(Hpa(0x5000), PageSize::Size4K, MemoryType::WriteBack, all), 0x5037);
        assert_eq!(Ept::leaf(Hpa(0x20_0000), PageSize::Size2M, MemoryType::Uncacheable, all), 0x20_0087);
        assert_eq!(
            Ept::leaf(Hpa(0x4000_0000), PageSize::Size1G, MemoryType::WriteThrough, PageAccess::READ),
            0x4000_00a1
        );
        assert_eq!(pointer(Hpa(0x7000)), 0x701e);
    }

    #[test]
    fn decoding_an_entry_returns_what_was_encoded() {
        assert!(!Ept::is_present(0) && !Ept::is_present(0xffff_f000));
        for size in PageSize::DESCENDING {
            for memory_type in [MemoryType::Uncacheable, MemoryType::WriteCombining, MemoryType::WriteBack] {
                let entry = Ept::leaf(Hpa(0x000f_ffff_c000_0000), size, memory_type, PageAccess::READ);
                assert!(Ept::is_present(entry));
                assert_eq!(Ept::address(entry), Hpa(0x000f_ffff_c000_0000));
                assert_eq!(Ept::memory_type(entry, size), memory_type);
                assert_eq!(Ept::is_leaf(entry, Level::Pd), size != PageSize::Size4K);
                assert!(Ept::is_leaf(entry, Level::Pt));
            }
        }
        assert!(!Ept::is_leaf(Ept::table(Hpa(0x1000)), Level::Pml4));
        assert!(!Ept::is_leaf(Ept::table(Hpa(0x1000)), Level::Pd));
    }
}
