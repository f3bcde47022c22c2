//! The firmware's list of CPUs, the MADT. ACPI Specification 6.5, 5.2.12 "Multiple APIC Description Table (MADT)".

use alloc::vec::Vec;

use super::acpi::{ReadOnly, Table, amend};

/// Number of CPUs that [`Madt::cpus`] can hold, more than any known machine has. Further CPUs are only counted.
pub const MAX_CPUS: usize = 2048;

/// Offset of the first structure.
const LIST: usize = 44;
/// Types of the processor local APIC structure and of the processor local x2APIC structure.
const LOCAL_APIC: u8 = 0;
const LOCAL_X2APIC: u8 = 9;
/// Flag in both structures: the CPU can be used.
const ENABLED: u8 = 1;
/// Flag in both structures: the CPU may be added while the system runs.
const ONLINE_CAPABLE: u8 = 2;

/// A CPU that can be used, from a processor local APIC or x2APIC structure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LocalApic {
    /// The ID of the CPU's local APIC.
    pub apic_id: u32,
}

/// What the MADT says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Madt {
    /// The CPUs that can be used, each once, in the order of the table.
    pub cpus: Vec<LocalApic>,
    /// Number of entries for usable CPUs that `cpus` has no room for.
    pub beyond: usize,
    /// True if a CPU is listed that cannot be used now: it may be added while the system runs.
    pub later: bool,
    /// True if the checksum is wrong. Linux uses such a table all the same, and waits for CPUs that do not start.
    pub wrong_sum: bool,
    /// What is wrong with the table, if anything. The machine may then have CPUs that are not in `cpus`.
    pub damage: Option<&'static str>,
}

/// Parses the MADT. Of a damaged table it returns what comes before the damage.
pub fn parse(table: &[u8]) -> Madt {
    let table = match whole(table) {
        Ok(table) => table,
        Err(what) => return Madt { damage: Some(what), ..Madt::default() },
    };
    let sum = table.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
    let mut madt = Madt { wrong_sum: sum != 0, ..Madt::default() };
    for structure in structures(table) {
        let Some((_, structure)) = structure else {
            madt.damage = Some("a structure in it has a wrong length");
            break;
        };
        let Some((apic_id, flags)) = cpu(structure) else { continue };
        // The "online capable" flag is newer than the first machines to which CPUs can be added. Those list such CPUs
        // without any flag.
        madt.later |= flags & ENABLED == 0;
        if flags & ENABLED != 0 && madt.cpus.iter().all(|known| known.apic_id != apic_id) {
            if madt.cpus.len() < MAX_CPUS {
                madt.cpus.push(LocalApic { apic_id });
            } else {
                madt.beyond += 1;
            }
        }
    }
    madt
}

impl Madt {
    /// Returns the APIC IDs of all listed CPUs but the boot CPU, whose ID is `boot`; an empty list if the table lists
    /// no CPU. Returns `None` if the boot CPU is missing: the IDs then mean something else, and an INIT might reach the
    /// CPU that sends it.
    pub fn others(&self, boot: u32) -> Option<Vec<u32>> {
        let ids = || self.cpus.iter().map(|cpu| cpu.apic_id);
        (self.cpus.is_empty() || ids().any(|id| id == boot)).then(|| ids().filter(|id| *id != boot).collect())
    }
}

/// Marks the CPUs for whose APIC ID `lost` returns true as unusable, so that the guest does not wait for them.
///
/// # Errors
/// [`ReadOnly`] if one of them could not be marked.
pub fn withdraw(table: &mut impl Table, lost: impl Fn(u32) -> bool) -> Result<(), ReadOnly> {
    let mut from = LIST;
    while let Some((flags, kept, next)) = next_lost(table.bytes(), from, &lost) {
        amend(table, flags, kept)?;
        from = next;
    }
    Ok(())
}

/// Finds the first usable CPU at or after offset `from` that `lost` names. Returns the offset of its flags, the flags
/// that mark it as unusable, and the offset of the next structure.
fn next_lost(table: &[u8], from: usize, lost: impl Fn(u32) -> bool) -> Option<(usize, u8, usize)> {
    structures_from(table, from).map_while(|structure| structure).find_map(|(at, structure)| {
        let (id, flags) = cpu(structure)?;
        let place = at + if structure[0] == LOCAL_APIC { 4 } else { 8 };
        let kept = flags & !(ENABLED | ONLINE_CAPABLE);
        (flags & ENABLED != 0 && lost(id)).then_some((place, kept, at + structure.len()))
    })
}

/// Returns the table, cut to the length that it states, if it is a MADT. Its structures may be damaged all the same.
///
/// # Errors
/// What is wrong with the table.
pub(super) fn whole(table: &[u8]) -> Result<&[u8], &'static str> {
    let stated =
        table.get(4..8).and_then(|bytes| bytes.first_chunk()).map(|bytes| u32::from_le_bytes(*bytes));
    let table = stated.and_then(|length| table.get(..length as usize)).filter(|t| t.len() >= LIST);
    let table = table.ok_or("its length is wrong")?;
    if table.starts_with(b"APIC") { Ok(table) } else { Err("it is another table") }
}

/// Returns all structures with their offsets. A damaged structure yields `None` as the last item.
pub(super) fn structures(table: &[u8]) -> impl Iterator<Item = Option<(usize, &[u8])>> {
    structures_from(table, LIST)
}

/// Returns the structures from offset `from` on, which is the start of a structure.
fn structures_from(table: &[u8], from: usize) -> impl Iterator<Item = Option<(usize, &[u8])>> {
    let mut next = Some(from);
    core::iter::from_fn(move || {
        let at = next.filter(|at| *at < table.len())?;
        let structure = table.get(at + 1).and_then(|length| table.get(at..at + usize::from(*length)));
        // A length of 0 or 1 would make the walk endless.
        let structure = structure.filter(|structure| structure.len() >= 2 && is_whole(structure));
        next = structure.map(|structure| at + structure.len());
        Some(structure.map(|structure| (at, structure)))
    })
}

/// Returns false if the structure is of a CPU and too short for its type.
const fn is_whole(structure: &[u8]) -> bool {
    match structure[0] {
        LOCAL_APIC => structure.len() >= 8,
        LOCAL_X2APIC => structure.len() >= 16,
        _ => true,
    }
}

/// Returns the APIC ID and the flags, or `None` if the structure describes no CPU.
fn cpu(structure: &[u8]) -> Option<(u32, u8)> {
    match structure {
        // The broadcast ID, 255 or 2^32 - 1, marks an entry without a CPU.
        [LOCAL_APIC, _, _, 0xff, ..] => None,
        [LOCAL_APIC, _, _, id, flags, ..] => Some(((*id).into(), *flags)),
        [LOCAL_X2APIC, _, _, _, a, b, c, d, flags, ..] => {
            Some((u32::from_le_bytes([*a, *b, *c, *d]), *flags)).filter(|(id, _)| *id != u32::MAX)
        }
        _ => None,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::firmware::acpi::Rom;

    /// Returns a MADT with these structures.
    pub fn table(structures: &[&[u8]]) -> Vec<u8> {
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
    fn cpus_of_both_structures_are_listed_once() {
        let table = table(&[CPU_0, IO_APIC, CPU_6, OFF, NONE, X2_6, X2_300]);
        assert_eq!(ids(&table), [0, 6, 300]);
        assert!(parse(&table).later);
        assert_eq!(parse(&table).damage, None);
    }

    #[test]
    fn cpu_that_may_be_added_needs_no_online_capable_flag() {
        const ABSENT: &[u8] = &[0, 8, 3, 7, 0, 0, 0, 0];
        const ABSENT_X2: &[u8] = &[9, 16, 0, 0, 0x2c, 1, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0];
        for absent in [OFF, ABSENT, ABSENT_X2] {
            assert!(parse(&table(&[CPU_0, absent])).later, "{absent:?}");
        }
        assert!(!parse(&table(&[CPU_0, CPU_6, NONE, X2_300])).later);
    }

    #[test]
    fn structure_with_a_bad_length_ends_the_walk() {
        for broken in [[0u8, 0, 0, 0], [0x80, 0, 0, 0], [0, 1, 0, 0], [0, 8, 2, 1], [9, 4, 0, 0]] {
            let table = table(&[CPU_0, &broken]);
            assert_eq!(ids(&table), [0]);
            assert_eq!(parse(&table).damage, Some("a structure in it has a wrong length"), "{broken:?}");
        }
    }

    #[test]
    fn table_with_a_wrong_checksum_is_used() {
        let good = table(&[CPU_0, CPU_6]);
        let mut bad = good.clone();
        bad[20] ^= 1;
        assert_eq!((parse(&good).wrong_sum, parse(&bad).wrong_sum), (false, true));
        assert_eq!((ids(&bad), parse(&bad).damage), (vec![0, 6], None));
    }

    #[test]
    fn other_cpus_are_known_only_if_the_boot_cpu_is_listed() {
        let madt = parse(&table(&[CPU_0, CPU_6, X2_300]));
        assert_eq!(madt.others(6), Some(vec![0, 300]));
        assert_eq!(madt.others(16), None);
        assert_eq!(Madt::default().others(16), Some(vec![]));
    }

    #[test]
    fn damage_is_described() {
        let good = table(&[CPU_0]);
        assert_eq!(parse(&good[..40]).damage, Some("its length is wrong"));
        assert_eq!(parse(&[]).damage, Some("its length is wrong"));
        let mut other = good;
        other[0] = b'F';
        seal(&mut other);
        assert_eq!(parse(&other).damage, Some("it is another table"));
    }

    #[test]
    fn withdrawn_cpus_are_no_longer_listed() {
        let mut table = table(&[CPU_0, IO_APIC, CPU_6, X2_6, X2_300]);
        withdraw(&mut table, |id| id != 0 && id != 300).unwrap();
        assert_eq!(ids(&table), [0, 300]);
        assert_eq!(parse(&table).damage, None, "the checksum has been adapted");
        assert_eq!(withdraw(&mut Rom(table.clone()), |id| id == 300), Err(ReadOnly));
        assert_eq!(withdraw(&mut Rom(table), |id| id == 6), Ok(()), "the CPU has been withdrawn before");
    }

    #[test]
    #[cfg_attr(miri, ignore = "2,000 CPUs are compared with each other, which takes minutes there")]
    fn cpus_beyond_the_limit_are_counted() {
        let cpu = |id: u32| {
            let [a, b, c, d] = id.to_le_bytes();
            [9, 16, 0, 0, a, b, c, d, 1, 0, 0, 0, 0, 0, 0, 0]
        };
        let cpus: Vec<_> = (0..MAX_CPUS as u32 + 3).map(cpu).collect();
        let structures: Vec<_> = cpus.iter().map(|cpu| &cpu[..]).collect();
        let madt = parse(&table(&structures));
        assert_eq!((madt.cpus.len(), madt.beyond, madt.damage), (MAX_CPUS, 3, None));
    }

    proptest! {
        #[test]
        fn any_bytes_can_be_parsed(mut bytes in proptest::collection::vec(any::<u8>(), 0..400), sealed: bool) {
            if sealed && bytes.len() >= LIST {
                bytes[..4].copy_from_slice(b"APIC");
                let length = (bytes.len() as u32).to_le_bytes();
                bytes[4..8].copy_from_slice(&length);
                seal(&mut bytes);
            }
            let madt = parse(&bytes);
            prop_assert!(madt.cpus.len() <= bytes.len() / 8);
            if sealed && bytes.len() >= LIST {
                withdraw(&mut bytes, |_| true).unwrap();
                prop_assert!(parse(&bytes).cpus.is_empty());
                prop_assert!(parse(&bytes).damage == madt.damage);
            }
        }
    }
}
