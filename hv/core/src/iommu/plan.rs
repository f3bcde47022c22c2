//! How the units translate, or why they cannot.

use core::ops::Range;

use super::capability::Capability;
use crate::mem::addr::{Hpa, PageSize, overlaps};
use crate::mem::ranges::RangeSet;

/// How many bits of an address four, and three, levels of tables translate.
const FOUR_LEVELS: u32 = 48;
const THREE_LEVELS: u32 = 39;
/// The addresses that one table of the third level covers.
const SPAN: u64 = 1 << THREE_LEVELS;

/// How all units translate. They share their tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// True for four levels of tables, and false for three.
    pub four_levels: bool,
    /// The largest page.
    pub largest: PageSize,
    /// The end of the addresses that devices reach.
    pub end: Hpa,
}

/// Why the units of a machine cannot guard Vidar's memory. It is displayed as the second half of a sentence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Obstacle {
    /// The DMAR is damaged.
    #[error("the firmware's list of IOMMUs (ACPI table DMAR) is damaged: {0}; update the firmware")]
    Damaged(&'static str),
    /// The DMAR lists more than Vidar can hold.
    #[error("the firmware's list of IOMMUs (ACPI table DMAR) is longer than Vidar can hold")]
    TooMany,
    /// Devices of this segment have no unit.
    #[error("no IOMMU is listed for all devices of PCI segment {0}")]
    Partial(u16),
    /// A unit has no registers where the DMAR says.
    #[error("no IOMMU is at {0}, where the firmware's ACPI table DMAR has one; update the firmware")]
    NoUnit(Hpa),
    /// The units have no number of levels in common.
    #[error("the IOMMUs translate addresses of neither 39 nor 48 bits in common")]
    Widths,
    /// A unit does not reach all RAM.
    #[error("an IOMMU translates addresses of {0} bits, and the machine has memory beyond them")]
    Reach(u32),
    /// Firmware's devices need memory that Vidar keeps.
    #[error(
        "the firmware uses a device that needs the memory at {0}, where Vidar is; take another order of modules in GRUB's \
         entry, so that Vidar is loaded elsewhere"
    )]
    Reserved(Hpa),
    /// A unit did not do as it was told.
    #[error("the IOMMU at {0} does not answer the command {1:#x}")]
    Stuck(Hpa, u32),
    /// Vidar has no frame left for the tables.
    #[error("no memory is left for the IOMMU's tables")]
    NoMemory,
}

/// Checks that the registers of a unit can be where the DMAR says, on a machine whose physical addresses have
/// `address_bits` bits. `memory` is what firmware's map calls memory, and `kept` is what Vidar keeps.
///
/// # Errors
/// [`Obstacle::NoUnit`] if they cannot. Accesses would then panic, fault, or change memory.
pub fn check_place(
    registers: &Range<Hpa>,
    address_bits: u32,
    memory: &RangeSet,
    kept: &[Range<Hpa>],
) -> Result<(), Obstacle> {
    let exists = registers.start < registers.end && (registers.end.0 - 1) >> address_bits.min(52) == 0;
    let is_memory = memory.overlaps(registers) || kept.iter().any(|kept| overlaps(kept, registers));
    if exists && !is_memory { Ok(()) } else { Err(Obstacle::NoUnit(registers.start)) }
}

/// Returns the addresses that devices do not reach: what Vidar keeps, and the `registers` of the units, which a device
/// could program otherwise.
pub fn holes(kept: &[Range<Hpa>], registers: impl Iterator<Item = Range<Hpa>>) -> RangeSet {
    kept.iter().cloned().chain(registers).collect()
}

/// Decides how the units with these capabilities translate on a machine whose RAM ends at `ram_top`. `reserved` is the
/// memory that firmware's devices need, and `kept` is what Vidar keeps.
///
/// # Errors
/// The [`Obstacle`], if they cannot guard Vidar's memory.
pub fn plan(
    units: &[Capability],
    ram_top: Hpa,
    reserved: &[Range<Hpa>],
    kept: &[Range<Hpa>],
) -> Result<Plan, Obstacle> {
    let needed = reserved.iter().find(|range| kept.iter().any(|kept| overlaps(kept, range)));
    if let Some(needed) = needed {
        return Err(Obstacle::Reserved(needed.start));
    }
    let four_levels = units.iter().all(|unit| unit.has_four_levels());
    if !four_levels && !units.iter().all(|unit| unit.has_three_levels()) {
        return Err(Obstacle::Widths);
    }
    let most = if four_levels { FOUR_LEVELS } else { THREE_LEVELS };
    let bits = units.iter().map(|unit| unit.address_bits()).fold(most, u32::min);
    if ram_top.0 > 1 << bits {
        return Err(Obstacle::Reach(bits));
    }
    let largest = units.iter().map(|unit| unit.largest_page()).min().unwrap_or(PageSize::Size4K);
    // With pages of 1 GiB a whole table costs no more than a part of it.
    let unit = if largest == PageSize::Size1G { SPAN } else { PageSize::Size1G.bytes() };
    let end = Hpa(ram_top.0.max(LOWEST_END).next_multiple_of(unit).min(1 << bits));
    Ok(Plan { four_levels, largest, end })
}

/// Devices and firmware have addresses below 4 GiB on every machine.
const LOWEST_END: u64 = 4 << 30;

impl Plan {
    /// Returns the most frames that the tables take, for `holes` ranges that devices do not reach and pieces of moved
    /// memory.
    pub fn frames(&self, holes: u64) -> u64 {
        frames(self.largest, self.end, holes)
    }
}

/// Returns the most frames that tables of pages of at most `largest` take, which end at `end`.
pub fn frames(largest: PageSize, end: Hpa, holes: u64) -> u64 {
    let of = |size: u64| end.0.div_ceil(size);
    let of_pages = match largest {
        PageSize::Size1G => 0,
        PageSize::Size2M => of(PageSize::Size1G.bytes()),
        PageSize::Size4K => of(PageSize::Size1G.bytes()) + of(PageSize::Size2M.bytes()),
    };
    // The root table, the context table and the root of the second level; then two tables for each end of a hole.
    3 + of(SPAN) + of_pages + 4 * holes
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn unit(widths: u64, bits: u64, pages: u64) -> Capability {
        Capability { cap: widths << 8 | (bits - 1) << 16 | pages << 34, ecap: 0 }
    }

    fn of(units: &[Capability], ram_top: u64) -> Result<Plan, Obstacle> {
        plan(units, Hpa(ram_top), &[], &[])
    }

    #[test]
    fn units_agree_on_levels_and_pages() {
        let both = unit(6, 48, 3);
        let planned = |four_levels, largest, end| Ok(Plan { four_levels, largest, end: Hpa(end) });
        assert_eq!(of(&[both, both], 8 * GIB), planned(true, PageSize::Size1G, 512 * GIB));
        assert_eq!(of(&[both, unit(2, 39, 3)], 8 * GIB), planned(false, PageSize::Size1G, 512 * GIB));
        assert_eq!(of(&[both, unit(4, 39, 1)], 8 * GIB + 1), planned(true, PageSize::Size2M, 9 * GIB));
        assert_eq!(of(&[both, unit(4, 39, 0)], GIB), planned(true, PageSize::Size4K, 4 * GIB));
        assert_eq!(of(&[unit(4, 36, 3)], GIB), planned(true, PageSize::Size1G, 64 * GIB));
        assert_eq!(of(&[both], 513 * GIB), planned(true, PageSize::Size1G, 1024 * GIB));
    }

    #[test]
    fn registers_are_neither_memory_nor_beyond_the_last_address() {
        let memory: RangeSet = [Hpa(0)..Hpa(0x8000_0000), Hpa(4 * GIB)..Hpa(8 * GIB)].into();
        let kept = [Hpa(0x9000_0000)..Hpa(0x9020_0000)];
        for (start, bits, fits) in [
            (0xfed9_0000, 39, true),
            (0x8000_0000, 39, true),
            ((1 << 39) - 0x5000, 39, true),
            ((1 << 52) - 0x5000, 52, true),
            ((1 << 39) - 0x4000, 39, false),
            (1 << 39, 39, false),
            ((1 << 52) - 0x1000, 52, false),
            ((1 << 52) - 0x1000, 64, false),
            (0x7fff_f000, 39, false),
            (4 * GIB - 0x1000, 39, false),
            (0x901f_f000, 39, false),
            (0x8fff_f000, 39, false),
            (5 * GIB, 39, false),
        ] {
            let registers = Hpa(start)..Hpa(start + 0x5000);
            let expected = if fits { Ok(()) } else { Err(Obstacle::NoUnit(Hpa(start))) };
            assert_eq!(check_place(&registers, bits, &memory, &kept), expected, "{start:#x}");
        }
    }

    #[test]
    fn devices_reach_neither_vidars_memory_nor_the_units() {
        let kept = [Hpa(0x20_0000)..Hpa(0x40_0000), Hpa(0x7000_0000)..Hpa(0x7020_0000)];
        let units = [Hpa(0xfed9_0000)..Hpa(0xfed9_1000), Hpa(0xfed9_8000)..Hpa(0xfed9_a000)];
        let holes = holes(&kept, units.iter().cloned());
        assert!(kept.iter().chain(&units).all(|range| holes.covers(range)));
        assert_eq!(holes.bytes(), 0x40_3000);
    }

    #[test]
    fn obstacles_are_found() {
        assert_eq!(of(&[unit(2, 39, 3), unit(4, 48, 3)], GIB), Err(Obstacle::Widths));
        assert_eq!(of(&[unit(8, 57, 3)], GIB), Err(Obstacle::Widths));
        assert_eq!(of(&[unit(0, 48, 3)], GIB), Err(Obstacle::Widths));
        assert_eq!(of(&[unit(6, 48, 3), unit(4, 39, 3)], 513 * GIB), Err(Obstacle::Reach(39)));
        let (kept, reserved) = (Hpa(0x20_0000)..Hpa(0x40_0000), Hpa(0x3f_f000)..Hpa(0x41_0000));
        let found = plan(&[unit(6, 48, 3)], Hpa(GIB), &[reserved], &[kept]);
        assert_eq!(found, Err(Obstacle::Reserved(Hpa(0x3f_f000))));
    }
}
