//! The firmware's list of CPUs: the MADT. ACPI Specification 6.5, 5.2.12 "Multiple APIC Description Table (MADT)".

use alloc::vec::Vec;

/// Bytes of the header that every ACPI table begins with.
pub const HEADER: usize = 36;
/// Where the list of structures begins.
const LIST: usize = 44;
/// Type of a processor local APIC structure, and of a processor local x2APIC structure.
const LOCAL_APIC: u8 = 0;
const LOCAL_X2APIC: u8 = 9;
/// Flags of both: the CPU can be used.
const ENABLED: u8 = 1;
/// Flags: it could be added while the system runs.
const ONLINE_CAPABLE: u8 = 2;

/// A CPU that can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listed {
    /// ID of its local APIC.
    pub apic_id: u32,
}

/// What the table says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Madt {
    /// The CPUs that can be used, each once, in the table's order.
    pub cpus: Vec<Listed>,
    /// What is wrong with the table; there may be more CPUs then.
    pub damage: Option<&'static str>,
}

/// Reads the table. Of a damaged one as much as can be trusted.
pub fn parse(table: &[u8]) -> Madt {
    let damaged = |what| Madt { cpus: Vec::new(), damage: Some(what) };
    let stated =
        table.get(4..8).and_then(|bytes| bytes.first_chunk()).map(|bytes| u32::from_le_bytes(*bytes));
    let Some(table) = stated.and_then(|length| table.get(..length as usize)).filter(|t| t.len() >= LIST)
    else {
        return damaged("its length is wrong");
    };
    if !table.starts_with(b"APIC") {
        return damaged("it is another table");
    }
    if table.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)) != 0 {
        return damaged("its checksum is wrong");
    }
    let mut madt = Madt::default();
    for structure in structures(table) {
        let Some((_, structure)) = structure else {
            madt.damage = Some("a structure in it has a wrong length");
            break;
        };
        if let Some((apic_id, flags)) = cpu(structure)
            && flags & ENABLED != 0
            && madt.cpus.iter().all(|known| known.apic_id != apic_id)
        {
            madt.cpus.push(Listed { apic_id });
        }
    }
    madt
}

/// Takes the CPUs that `lost` names off the table, so that who reads it does not wait for them.
pub fn withdraw(table: &mut [u8], lost: impl Fn(u32) -> bool) {
    let withdrawn: Vec<usize> = structures(table)
        .map_while(|structure| structure)
        .filter(|(_, structure)| cpu(structure).is_some_and(|(id, flags)| flags & ENABLED != 0 && lost(id)))
        .map(|(at, structure)| at + if structure[0] == LOCAL_APIC { 4 } else { 8 })
        .collect();
    for flags in withdrawn {
        let kept = table[flags] & !(ENABLED | ONLINE_CAPABLE);
        // The sum of all bytes stays 0.
        table[9] = table[9].wrapping_add(table[flags] - kept);
        table[flags] = kept;
    }
}

/// The structures of the list with their places; `None` once, as the last, where one is damaged.
fn structures(table: &[u8]) -> impl Iterator<Item = Option<(usize, &[u8])>> {
    let mut next = Some(LIST);
    core::iter::from_fn(move || {
        let at = next.filter(|at| *at < table.len())?;
        let structure = table.get(at + 1).and_then(|length| table.get(at..at + usize::from(*length)));
        // A length that leads nowhere would never end.
        let structure = structure.filter(|structure| structure.len() >= 2 && is_whole(structure));
        next = structure.map(|structure| at + structure.len());
        Some(structure.map(|structure| (at, structure)))
    })
}

/// Whether a structure that is read has all its fields.
const fn is_whole(structure: &[u8]) -> bool {
    match structure[0] {
        LOCAL_APIC => structure.len() >= 8,
        LOCAL_X2APIC => structure.len() >= 16,
        _ => true,
    }
}

/// APIC ID and flags, if the structure is of a CPU.
fn cpu(structure: &[u8]) -> Option<(u32, u8)> {
    match structure {
        // The ID that means all CPUs stands for none.
        [LOCAL_APIC, _, _, 0xff, ..] => None,
        [LOCAL_APIC, _, _, id, flags, ..] => Some(((*id).into(), *flags)),
        [LOCAL_X2APIC, _, _, _, a, b, c, d, flags, ..] => {
            Some((u32::from_le_bytes([*a, *b, *c, *d]), *flags)).filter(|(id, _)| *id != u32::MAX)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn table(structures: &[&[u8]]) -> Vec<u8> {
        let mut table = b"APIC\0\0\0\0\x03\0".to_vec();
        table.resize(LIST, 0x55);
        structures.iter().for_each(|structure| table.extend_from_slice(structure));
        let length = (table.len() as u32).to_le_bytes();
        table[4..8].copy_from_slice(&length);
        seal(&mut table);
        table
    }

    fn seal(table: &mut [u8]) {
        table[9] = 0;
        table[9] = table.iter().fold(0u8, |sum, byte| sum.wrapping_sub(*byte));
    }

    fn ids(table: &[u8]) -> Vec<u32> {
        parse(table).cpus.iter().map(|cpu| cpu.apic_id).collect()
    }

    const CPU_0: &[u8] = &[0, 8, 1, 0, 1, 0, 0, 0];
    const CPU_6: &[u8] = &[0, 8, 2, 6, 1, 0, 0, 0];
    const OFF: &[u8] = &[0, 8, 3, 7, 2, 0, 0, 0];
    const X2_300: &[u8] = &[9, 16, 0, 0, 0x2c, 1, 0, 0, 1, 0, 0, 0, 9, 0, 0, 0];
    const X2_6: &[u8] = &[9, 16, 0, 0, 6, 0, 0, 0, 1, 0, 0, 0, 9, 0, 0, 0];
    const IO_APIC: &[u8] = &[1, 12, 0, 0, 0, 0, 0xc0, 0xfe, 0, 0, 0, 0];
    const NONE: &[u8] = &[0, 8, 3, 0xff, 1, 0, 0, 0];

    #[test]
    fn cpus_of_both_kinds_each_once() {
        let table = table(&[CPU_0, IO_APIC, CPU_6, OFF, NONE, X2_6, X2_300]);
        assert_eq!(ids(&table), [0, 6, 300]);
        assert_eq!(parse(&table).damage, None);
    }

    #[test]
    fn a_structure_of_no_length_ends_the_walk() {
        for broken in [[0u8, 0, 0, 0], [0x80, 0, 0, 0], [0, 1, 0, 0], [0, 8, 2, 1], [9, 4, 0, 0]] {
            let table = table(&[CPU_0, &broken]);
            assert_eq!(ids(&table), [0]);
            assert_eq!(parse(&table).damage, Some("a structure in it has a wrong length"), "{broken:?}");
        }
    }

    #[test]
    fn damage_is_named() {
        let good = table(&[CPU_0]);
        let mut bad = good.clone();
        bad[20] ^= 1;
        assert_eq!(parse(&bad).damage, Some("its checksum is wrong"));
        assert_eq!(parse(&good[..40]).damage, Some("its length is wrong"));
        assert_eq!(parse(&[]).damage, Some("its length is wrong"));
        let mut other = good;
        other[0] = b'F';
        seal(&mut other);
        assert_eq!(parse(&other).damage, Some("it is another table"));
    }

    #[test]
    fn a_cpu_is_withdrawn() {
        let mut table = table(&[CPU_0, IO_APIC, CPU_6, X2_6, X2_300]);
        withdraw(&mut table, |id| id != 0 && id != 300);
        assert_eq!(ids(&table), [0, 300]);
        assert_eq!(parse(&table).damage, None, "the checksum is right");
    }

    proptest! {
        #[test]
        fn whatever_is_there_can_be_read(mut bytes in proptest::collection::vec(any::<u8>(), 0..400), sealed: bool) {
            if sealed && bytes.len() >= LIST {
                bytes[..4].copy_from_slice(b"APIC");
                let length = (bytes.len() as u32).to_le_bytes();
                bytes[4..8].copy_from_slice(&length);
                seal(&mut bytes);
            }
            let madt = parse(&bytes);
            prop_assert!(madt.cpus.len() <= bytes.len() / 8);
            if sealed && bytes.len() >= LIST {
                withdraw(&mut bytes, |_| true);
                prop_assert!(parse(&bytes).cpus.is_empty());
                prop_assert!(parse(&bytes).damage == madt.damage);
            }
        }
    }
}
