//! Tests which memory is usable and which e820 map the guest gets, for any order and any overlaps of the firmware's
//! entries.

use std::ops::Range;

use proptest::prelude::*;
use proptest::sample::Index;
use vidar_core::linux::boot_params::{Contents, SIZE, fill, more_regions, more_regions_size};
use vidar_core::mem::addr::{Hpa, PAGE_SIZE};
use vidar_core::mem::map::{MemoryKind, MemoryMap, MemoryRegion};

use crate::model::{self, pieces};
use crate::placing::DEBIAN;
use crate::recorded;

/// Returns the e820 map that the guest gets: the table in boot_params and the setup_data record.
fn table(map: &MemoryMap<'_>) -> Vec<MemoryRegion> {
    const RECORD: u64 = 0x1_3000;
    let mut page = [0; SIZE];
    fill(
        &mut page,
        &Contents {
            header: &DEBIAN.header,
            kernel: Hpa(0),
            command_line: Hpa(0),
            initrd: None,
            map,
            setup_data: Hpa(RECORD),
            rsdp: None,
            screen: None,
            efi: None,
        },
    );
    let word = |bytes: &[u8]| u64::from_le_bytes(*bytes.first_chunk().unwrap());
    let mut record = Vec::new();
    more_regions(map, |bytes| record.extend_from_slice(bytes));
    assert_eq!(record.len(), more_regions_size(map));
    assert_eq!(word(&page[0x250..]), if record.is_empty() { 0 } else { RECORD });
    if !record.is_empty() {
        assert_eq!(page[0x1e8], 128, "the table is full first");
        // There is no other record; the type is SETUP_E820_EXT; then comes the size in bytes of the entries.
        assert_eq!((word(&record), word(&record[8..])), (0, 1 | (record.len() as u64 - 16) << 32));
    }
    let entries = page[0x2d0..].chunks_exact(20).take(page[0x1e8].into());
    let entries = entries.chain(record.get(16..).unwrap_or_default().chunks_exact(20));
    let region = |entry: &[u8]| {
        let kind = MemoryKind::from_raw(u32::from_le_bytes(*entry.last_chunk().unwrap()));
        MemoryRegion { range: Hpa(word(entry))..Hpa(word(entry) + word(&entry[8..])), kind }
    };
    entries.map(region).collect()
}

/// Checks that the table equals the map, except that `hidden` is reserved.
fn check_told(regions: &[MemoryRegion], hidden: &Range<Hpa>) -> Result<(), TestCaseError> {
    let told = table(&MemoryMap::from_regions(regions.iter().cloned()).reserved(hidden));
    let edges: Vec<_> = [regions, &told[..]]
        .concat()
        .iter()
        .flat_map(|region| [region.range.start, region.range.end])
        .chain([hidden.start, hidden.end])
        .collect();
    for (before, after) in pieces(regions, &edges).iter().zip(pieces(&told, &edges)) {
        prop_assert_eq!(&before.range, &after.range);
        let inside = hidden.contains(&before.range.start);
        let expected = if inside { &[MemoryKind::Reserved][..] } else { &before.kinds };
        prop_assert_eq!(&after.kinds[..], expected, "at {:?}", before.range);
    }
    Ok(())
}

/// Returns a machine whose entries are in another order, some of them twice. It has further entries of any kind, from
/// edge to edge of others or a little beside them.
pub fn disturbed() -> impl Strategy<Value = Vec<MemoryRegion>> {
    let edge = || (any::<Index>(), prop_oneof![Just(0), -4096i64..4096]);
    let further = prop::collection::vec((edge(), edge(), 0u32..9), 0..6);
    let machine = prop::sample::select(recorded::all());
    (machine, prop::collection::vec(any::<Index>(), 0..8), further).prop_flat_map(
        |(machine, twice, further)| {
            let (mut regions, edges) = (machine.regions(), machine.edges());
            let at = |(index, beside): (Index, i64)| Hpa(index.get(&edges).0.saturating_add_signed(beside));
            let twice: Vec<_> = twice.iter().map(|index| index.get(&regions).clone()).collect();
            regions.extend(twice);
            regions.extend(further.into_iter().map(|(start, end, raw)| MemoryRegion {
                range: at(start)..at(end),
                kind: MemoryKind::from_raw(raw),
            }));
            Just(regions).prop_shuffle()
        },
    )
}

fn is_usable_by_model(regions: &[MemoryRegion]) {
    let map = MemoryMap::from_regions(regions.iter().cloned());
    assert_eq!(&*map.usable(), model::usable(regions));
}

#[test]
fn usable_is_what_every_entry_calls_usable() {
    for machine in recorded::all() {
        let mut regions = machine.regions();
        is_usable_by_model(&regions);
        regions.reverse();
        is_usable_by_model(&regions);
    }
}

#[test]
fn guest_map_differs_only_in_vidars_memory() {
    for machine in recorded::all() {
        let name = &machine.name;
        for region in machine.places_of_vidar() {
            check_told(&machine.regions(), &region).unwrap_or_else(|error| panic!("{name}: {error}"));
        }
    }
}

#[test]
fn entry_beyond_the_address_space_adds_no_ram_there() {
    let wrapping = MemoryRegion::new(Hpa(1 << 32), u64::MAX, MemoryKind::Usable);
    let nowhere = MemoryRegion::new(Hpa(u64::MAX - 0xfff), 0x2000, MemoryKind::Usable);
    for machine in recorded::all() {
        let mut regions = machine.regions();
        regions.extend([wrapping.clone(), nowhere.clone()]);
        is_usable_by_model(&regions);
        assert!(MemoryMap::from_regions(regions).ram_top() <= Hpa(1 << 46), "{}", machine.name);
    }
}

proptest! {
    #[test]
    fn disturbed_maps_are_usable_by_the_model(regions in disturbed()) {
        is_usable_by_model(&regions);
    }

    #[test]
    fn disturbed_maps_are_handed_to_the_guest_unchanged(regions in disturbed(), at: Index, pages in 1u64..1024) {
        let usable = MemoryMap::from_regions(regions.iter().cloned()).usable();
        prop_assume!(!usable.is_empty());
        let range = at.get(&usable);
        let start = Hpa(range.start.0 + at.index((range.end.0 - range.start.0) as usize) as u64).align_down(PAGE_SIZE);
        check_told(&regions, &(start..start + pages * PAGE_SIZE))?;
    }
}
