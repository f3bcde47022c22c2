//! The firmware's list of AMD IOMMUs, the IVRS. AMD I/O Virtualization Technology (IOMMU) Specification (48882), 5.2
//! "I/O Virtualization ACPI Table (IVRS)". Vidar only counts them.

use alloc::vec::Vec;

use super::remapping::{number, structures, whole};
use crate::mem::addr::Hpa;

/// Types of the structures of an IOMMU. Firmware describes an IOMMU by several of them.
const UNITS: [u64; 3] = [0x10, 0x11, 0x40];

/// Number of IOMMUs that [`Ivrs::units`] can hold. Further ones are not counted.
pub const MAX_UNITS: usize = 64;

/// What the IVRS says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ivrs {
    /// The addresses of the registers of the IOMMUs, each once, in the order of the table.
    pub units: Vec<Hpa>,
    /// What is wrong with the table, if anything. The machine may then have IOMMUs that are not in `units`.
    pub damage: Option<&'static str>,
}

/// Parses the IVRS. Of a damaged table it returns what comes before the damage.
pub fn parse(table: &[u8]) -> Ivrs {
    let mut ivrs = Ivrs::default();
    ivrs.damage = whole(table, *b"IVRS").and_then(|table| read(table, &mut ivrs)).err();
    ivrs
}

fn read(table: &[u8], ivrs: &mut Ivrs) -> Result<(), &'static str> {
    for structure in structures(table) {
        let structure = structure?;
        if number(structure, 0, 1).is_some_and(|kind| UNITS.contains(&kind)) {
            let registers = Hpa(number(structure, 8, 8).ok_or("the address of a unit in it is wrong")?);
            if ivrs.units.len() < MAX_UNITS && !ivrs.units.contains(&registers) {
                ivrs.units.push(registers);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(structures: &[&[u8]]) -> Vec<u8> {
        let mut table = b"IVRS".to_vec();
        table.resize(48, 0);
        structures.iter().for_each(|structure| table.extend_from_slice(structure));
        let length = (table.len() as u32).to_le_bytes();
        table[4..8].copy_from_slice(&length);
        table
    }

    fn unit(kind: u8, registers: u64) -> Vec<u8> {
        let mut unit = vec![kind, 0, 24, 0, 2, 0, 0x40, 0];
        unit.extend_from_slice(&registers.to_le_bytes());
        unit.resize(24, 0);
        unit
    }

    #[test]
    fn iommus_are_listed_once() {
        let unity_map = [0x21, 0, 8, 0, 0, 0, 0, 0];
        let units = [unit(0x10, 0xfd00_0000), unit(0x11, 0xfd00_0000), unit(0x40, 0xfd20_0000)];
        let ivrs = parse(&table(&[&units[0], &unity_map, &units[1], &units[2]]));
        assert_eq!(ivrs, Ivrs { units: vec![Hpa(0xfd00_0000), Hpa(0xfd20_0000)], damage: None });
    }

    #[test]
    fn count_of_iommus_stops() {
        let units: Vec<_> = (0..=MAX_UNITS as u64).map(|index| unit(0x10, index * 0x8_0000)).collect();
        let units: Vec<_> = units.iter().map(|unit| &unit[..]).collect();
        let ivrs = parse(&table(&units));
        assert_eq!((ivrs.units.len(), ivrs.damage), (MAX_UNITS, None));
    }

    #[test]
    fn damage_ends_the_walk_and_is_described() {
        for (broken, damage) in [
            (&[0x10, 0, 0, 0][..], "a structure in it has a wrong length"),
            (&[0x10, 0, 90, 0], "a structure in it has a wrong length"),
            (&[0x10, 0, 4, 0], "the address of a unit in it is wrong"),
        ] {
            let ivrs = parse(&table(&[&unit(0x10, 0xfd00_0000), broken]));
            assert_eq!((ivrs.units.len(), ivrs.damage), (1, Some(damage)), "{broken:?}");
        }
        assert_eq!(parse(b"DMAR").damage, Some("its length is wrong"));
    }
}
