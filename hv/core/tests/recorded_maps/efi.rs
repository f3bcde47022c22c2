//! Tests with EFI memory maps: their e820 form equals the one that Linux' own EFI stub makes, and Vidar is hidden in
//! them.

use std::ops::Range;

use proptest::prelude::*;
use proptest::sample::Index;
use vidar_core::firmware::efi_map::{hide, memory_map};
use vidar_core::mem::addr::{Hpa, PAGE_SIZE, overlaps};
use vidar_core::mem::map::MemoryMap;

use crate::recorded::{self, DESCRIPTOR, Descriptor, MIB, Machine, encode};

const SPECIFIC_PURPOSE: u64 = 1 << 18;

/// An e820 entry: its start, its end and the number of its type.
type Entry = (u64, u64, u32);

fn push(entries: &mut Vec<Entry>, (start, end, kind): Entry) {
    match entries.last_mut().filter(|last| (last.1, last.2) == (start, kind)) {
        Some(last) => last.1 = end,
        None => entries.push((start, end, kind)),
    }
}

/// Does what setup_e820 in Linux' drivers/firmware/efi/libstub/x86-stub.c does: joins an entry with the one before if
/// they touch and have the same type, and leaves out types that it does not know and memory that has not been accepted.
fn stub(descriptors: &[Descriptor]) -> Vec<Entry> {
    let mut entries = Vec::new();
    for one in descriptors {
        let special = one.attributes & SPECIFIC_PURPOSE != 0;
        let kind = match one.kind {
            0 | 5 | 6 | 11 | 12 | 13 => 2,
            8 => 5,
            9 => 3,
            1 | 2 | 3 | 4 | 7 if special => 0xefff_ffff,
            1 | 2 | 3 | 4 | 7 => 1,
            10 => 4,
            14 => 7,
            _ => continue,
        };
        push(&mut entries, (one.start, one.end, kind));
    }
    entries
}

/// Returns Vidar's entries, with neighbours joined in the same way.
fn joined(map: &MemoryMap<'_>) -> Vec<Entry> {
    let mut entries = Vec::new();
    map.iter().for_each(|region| {
        push(&mut entries, (region.range.start.0, region.range.end.0, region.kind.to_raw()));
    });
    entries
}

fn decode(map: &[u8]) -> Vec<Descriptor> {
    let word = |bytes: &[u8], at: usize| u64::from_le_bytes(*bytes[at..].first_chunk().unwrap());
    let one = |bytes: &[u8]| Descriptor {
        kind: word(bytes, 0) as u32,
        start: word(bytes, 8),
        end: word(bytes, 8) + word(bytes, 24) * PAGE_SIZE,
        attributes: word(bytes, 32),
    };
    map.chunks_exact(DESCRIPTOR as usize).map(one).collect()
}

fn machines() -> Vec<Machine> {
    let machines: Vec<_> =
        recorded::all().into_iter().filter(|machine| !machine.descriptors.is_empty()).collect();
    assert!(machines.len() >= 2);
    machines
}

/// Returns the map that the guest gets.
fn hidden_in(map: &[u8], region: &Range<Hpa>) -> Vec<u8> {
    let mut shown = Vec::new();
    hide(map, DESCRIPTOR, std::slice::from_ref(region), |bytes| shown.extend_from_slice(bytes));
    shown
}

/// Checks that `after` equals `before`, except that the part of each descriptor in `hidden` is reserved.
fn check_hidden(before: &[Descriptor], after: &[Descriptor], hidden: &Range<Hpa>) {
    let mut expected = Vec::new();
    for one in before {
        let range = Hpa(one.start)..Hpa(one.end);
        if !overlaps(&range, hidden) {
            expected.push(*one);
            continue;
        }
        let (from, to) = (one.start.max(hidden.start.0), one.end.min(hidden.end.0));
        let pieces = [(one.start, from, one.kind), (from, to, 0), (to, one.end, one.kind)];
        let pieces = pieces.into_iter().filter(|(start, end, _)| start < end);
        expected.extend(pieces.map(|(start, end, kind)| Descriptor { kind, start, end, ..*one }));
    }
    assert_eq!(after, expected);
}

#[test]
fn e820_map_equals_that_of_the_linux_efi_stub() {
    for machine in machines() {
        let encoded = encode(&machine.descriptors);
        let map = memory_map(&encoded, DESCRIPTOR);
        assert_eq!(joined(&map), stub(&machine.descriptors), "{}", machine.name);
    }
}

#[test]
fn vidar_is_hidden_at_every_place() {
    for machine in machines() {
        let map = encode(&machine.descriptors);
        let usable = memory_map(&map, DESCRIPTOR).usable();
        for region in machine.places_of_vidar() {
            let hidden = hidden_in(&map, &region);
            check_hidden(&machine.descriptors, &decode(&hidden), &region);
            let mut left = usable.clone();
            left.remove(&region);
            assert_eq!(memory_map(&hidden, DESCRIPTOR).usable(), left, "{}", machine.name);
        }
    }
}

/// Returns a machine whose descriptors are in another order, and some of which have other types or a specific purpose.
fn disturbed() -> impl Strategy<Value = Vec<Descriptor>> {
    let kinds = prop_oneof![0u32..18, Just(0x7000_0001), Just(0x8000_0000)];
    let changes = prop::collection::vec((any::<Index>(), kinds, any::<bool>()), 0..8);
    (prop::sample::select(machines()), changes).prop_flat_map(|(machine, changes)| {
        let mut descriptors = machine.descriptors;
        let count = descriptors.len();
        for (index, kind, special) in changes {
            let one = &mut descriptors[index.index(count)];
            one.kind = kind;
            one.attributes |= if special { SPECIFIC_PURPOSE } else { 0 };
        }
        Just(descriptors).prop_shuffle()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn disturbed_maps_equal_those_of_the_linux_efi_stub(descriptors in disturbed()) {
        let encoded = encode(&descriptors);
        let map = memory_map(&encoded, DESCRIPTOR);
        prop_assert_eq!(joined(&map), stub(&descriptors));
    }

    #[test]
    fn any_pages_can_be_hidden(descriptors in disturbed(), page in 0u64..0x8_0000, length in 1u64..2 * MIB / PAGE_SIZE) {
        let hidden = Hpa(page * PAGE_SIZE)..Hpa((page + length) * PAGE_SIZE);
        check_hidden(&descriptors, &decode(&hidden_in(&encode(&descriptors), &hidden)), &hidden);
    }
}
