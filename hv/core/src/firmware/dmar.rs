//! The firmware's list of Intel IOMMUs, the DMAR. Intel Virtualization Technology for Directed I/O Architecture
//! Specification (D51397), 8 "BIOS Considerations".

use alloc::vec::Vec;
use core::ops::Range;

use super::acpi::{ReadOnly, Table, amend};
use super::remapping::{number, structures, whole};
use crate::mem::addr::{Hpa, PAGE_SIZE};

/// Number of units that [`Dmar::units`] can hold. Each takes memory of Vidar's. Linux takes up to 1,024.
pub const MAX_UNITS: usize = 64;
/// Number of ranges that [`Dmar::reserved`] can hold.
pub const MAX_RESERVED: usize = 256;

/// Type of the structure of a remapping unit: "DMA Remapping Hardware Unit Definition" (DRHD).
const UNIT: u64 = 0;
/// Type of the structure of memory that devices use for firmware: "Reserved Memory Region Reporting" (RMRR).
const RESERVED_MEMORY: u64 = 1;
/// Offset of the flags of the table.
const FLAGS: usize = 37;
/// The flag DMA_CTRL_PLATFORM_OPT_IN.
const OPT_IN: u8 = 1 << 2;

/// A remapping unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unit {
    /// The address of its registers.
    pub registers: Hpa,
    /// The number of its PCI segment.
    pub segment: u16,
    /// True for the main unit of the segment: that of all devices that no other unit has (INCLUDE_PCI_ALL), or one that
    /// lists an I/O APIC, as the unit of QEMU does, which lists each device.
    pub is_main: bool,
}

/// What the DMAR says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Dmar {
    /// The units, each once, in the order of the table.
    pub units: Vec<Unit>,
    /// The memory that firmware's own use of devices needs.
    pub reserved: Vec<Range<Hpa>>,
    /// Number of entries for which `units` or `reserved` has no room.
    pub beyond: usize,
    /// What is wrong with the table, if anything. The machine may then have units that are not in `units`.
    pub damage: Option<&'static str>,
}

impl Dmar {
    /// Returns a segment that has units, but no main one, so that devices are not translated.
    pub fn open_segment(&self) -> Option<u16> {
        let has_main = |segment| self.units.iter().any(|unit| unit.segment == segment && unit.is_main);
        self.units.iter().map(|unit| unit.segment).find(|segment| !has_main(*segment))
    }
}

/// Parses the DMAR. Of a damaged table it returns what comes before the damage.
pub fn parse(table: &[u8]) -> Dmar {
    let mut dmar = Dmar::default();
    dmar.damage = whole(table, *b"DMAR").and_then(|table| read(table, &mut dmar)).err();
    dmar
}

fn read(table: &[u8], dmar: &mut Dmar) -> Result<(), &'static str> {
    for structure in structures(table) {
        let structure = structure?;
        match number(structure, 0, 2) {
            Some(UNIT) => {
                let unit = unit(structure).ok_or("the address of a unit in it is wrong")?;
                if dmar.units.iter().any(|known| known.registers == unit.registers) {
                    continue;
                }
                dmar.beyond += add(&mut dmar.units, unit, MAX_UNITS);
            }
            Some(RESERVED_MEMORY) => {
                let range = reserved(structure).ok_or("a reserved region in it is wrong")?;
                dmar.beyond += add(&mut dmar.reserved, range, MAX_RESERVED);
            }
            _ => {}
        }
    }
    Ok(())
}

/// Adds the entry to the list, if that has fewer than `most`. Returns the number of entries that were left out.
fn add<T>(list: &mut Vec<T>, entry: T, most: usize) -> usize {
    let full = list.len() >= most;
    if !full {
        list.push(entry);
    }
    usize::from(full)
}

fn unit(structure: &[u8]) -> Option<Unit> {
    let (flags, segment) = (number(structure, 4, 1)?, number(structure, 6, 2)?);
    let registers = Hpa(number(structure, 8, 8)?);
    let usable = registers.0 != 0 && registers.is_aligned(PAGE_SIZE) && registers.0 >> 52 == 0;
    usable.then_some(Unit {
        registers,
        segment: segment as u16,
        is_main: flags & 1 != 0 || lists_io_apic(structure),
    })
}

/// Returns true if an I/O APIC is among the devices of the unit. VT-d specification, 8.3.1 "Device Scope Structure".
fn lists_io_apic(structure: &[u8]) -> bool {
    const IO_APIC: u64 = 3;
    let mut rest = structure.get(16..).unwrap_or_default();
    while let (Some(kind), Some(length @ 1..)) = (number(rest, 0, 1), number(rest, 1, 1)) {
        if kind == IO_APIC {
            return true;
        }
        rest = rest.get(length as usize..).unwrap_or_default();
    }
    false
}

/// Returns the region of the structure, whose last byte the table states.
fn reserved(structure: &[u8]) -> Option<Range<Hpa>> {
    let (first, last) = (number(structure, 8, 8)?, number(structure, 16, 8)?);
    Some(Hpa(first)..Hpa(last.checked_add(1)?)).filter(|range| !range.is_empty())
}

/// Clears the flag DMA_CTRL_PLATFORM_OPT_IN. With it firmware asks the operating system to guard memory from external
/// devices by these units, which the operating system cannot do once they are Vidar's.
///
/// # Errors
/// [`ReadOnly`] if the table could not be changed.
pub fn withdraw_opt_in(table: &mut impl Table) -> Result<(), ReadOnly> {
    match table.bytes().get(FLAGS) {
        Some(flags) if flags & OPT_IN != 0 => {
            let kept = flags & !OPT_IN;
            amend(table, FLAGS, kept)
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(structures: &[&[u8]]) -> Vec<u8> {
        let mut table = b"DMAR\0\0\0\0\x01\0".to_vec();
        table.resize(48, 0);
        table[37] = 5;
        structures.iter().for_each(|structure| table.extend_from_slice(structure));
        let length = (table.len() as u32).to_le_bytes();
        table[4..8].copy_from_slice(&length);
        table[9] = table.iter().fold(0u8, |sum, byte| sum.wrapping_sub(*byte));
        table
    }

    fn unit(registers: u64) -> Vec<u8> {
        let mut unit = vec![0, 0, 24, 0, 1, 0, 2, 0];
        unit.extend_from_slice(&registers.to_le_bytes());
        unit.extend_from_slice(&[3, 8, 0, 0, 2, 0xf0, 0x1f, 0]);
        unit
    }

    fn reserved(first: u64, last: u64) -> Vec<u8> {
        let mut reserved = vec![1, 0, 24, 0, 0, 0, 0, 0];
        reserved.extend_from_slice(&first.to_le_bytes());
        reserved.extend_from_slice(&last.to_le_bytes());
        reserved
    }

    /// The structure of root ports with ATS, which says nothing of interest here.
    const ROOT_PORTS: &[u8] = &[2, 0, 8, 0, 1, 0, 0, 0];

    #[test]
    fn units_and_reserved_memory_are_listed_once() {
        let table = table(&[
            &unit(0xfed9_0000),
            ROOT_PORTS,
            &unit(0xfed9_1000),
            &unit(0xfed9_0000),
            &reserved(0x7000_0000, 0x7000_ffff),
        ]);
        let units =
            [0xfed9_0000, 0xfed9_1000].map(|at| Unit { registers: Hpa(at), segment: 2, is_main: true });
        let reserved = vec![Hpa(0x7000_0000)..Hpa(0x7001_0000)];
        assert_eq!(parse(&table), Dmar { units: units.to_vec(), reserved, beyond: 0, damage: None });
    }

    #[test]
    fn each_segment_needs_a_main_unit() {
        let of = |all: bool, segment: u8, registers| {
            let mut unit = unit(registers);
            (unit[4], unit[6]) = (u8::from(all), segment);
            // A device, in place of the I/O APIC.
            unit[16] = 1;
            unit
        };
        let mut listing = of(false, 0, 0x4000);
        listing[2] += 8;
        listing.extend([3, 8, 0, 0, 0, 0xff, 0, 0]);
        let (graphics, all, other) = (of(false, 0, 0x1000), of(true, 0, 0x2000), of(false, 1, 0x3000));
        for (units, open) in [
            (vec![&graphics[..]], Some(0)),
            (vec![&graphics, &all], None),
            (vec![&graphics, &all, &other], Some(1)),
            (vec![&graphics, &listing], None),
            (vec![], None),
        ] {
            assert_eq!(parse(&table(&units)).open_segment(), open);
        }
    }

    #[test]
    fn damage_ends_the_walk_and_is_described() {
        let good = unit(0xfed9_0000);
        for (broken, damage) in [
            (vec![0, 0, 0, 0], "a structure in it has a wrong length"),
            (vec![0, 0, 3, 0], "a structure in it has a wrong length"),
            (vec![0, 0, 200, 0], "a structure in it has a wrong length"),
            (vec![0, 0], "a structure in it has a wrong length"),
            (vec![0, 0, 8, 0, 0, 0, 0, 0], "the address of a unit in it is wrong"),
            (unit(0), "the address of a unit in it is wrong"),
            (unit(0xfed9_0800), "the address of a unit in it is wrong"),
            (unit(1 << 52), "the address of a unit in it is wrong"),
            (reserved(0x2000, 0xfff), "a reserved region in it is wrong"),
            (reserved(0, u64::MAX), "a reserved region in it is wrong"),
        ] {
            let dmar = parse(&table(&[&good, &broken]));
            assert_eq!((dmar.units.len(), dmar.damage), (1, Some(damage)), "{broken:?}");
        }
        assert_eq!(parse(&table(&[])[..40]).damage, Some("its length is wrong"));
        assert_eq!(parse(&[]).damage, Some("its length is wrong"));
        let mut other = table(&[&good]);
        other[0] = b'X';
        assert_eq!(parse(&other), Dmar { damage: Some("it is another table"), ..Dmar::default() });
    }

    #[test]
    fn entries_beyond_the_most_are_counted() {
        let units: Vec<_> = (0..=MAX_UNITS as u64).map(|index| unit(0xfed0_0000 + index * 4096)).collect();
        let units: Vec<_> = units.iter().map(|unit| &unit[..]).collect();
        assert_eq!(parse(&table(&units[..MAX_UNITS])).beyond, 0);
        let dmar = parse(&table(&units));
        assert_eq!((dmar.units.len(), dmar.beyond, dmar.damage), (MAX_UNITS, 1, None));
        let regions = vec![reserved(0x1000, 0x1fff); MAX_RESERVED + 3];
        let regions: Vec<_> = regions.iter().map(|region| &region[..]).collect();
        let dmar = parse(&table(&regions));
        assert_eq!((dmar.reserved.len(), dmar.beyond, dmar.damage), (MAX_RESERVED, 3, None));
    }

    #[test]
    fn opt_in_is_withdrawn_and_the_checksum_adapted() {
        let mut table = table(&[]);
        for _ in 0..2 {
            withdraw_opt_in(&mut table).expect("the table is in RAM");
            assert_eq!((table[37], table.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte))), (1, 0));
        }
    }
}
