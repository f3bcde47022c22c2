//! The memory map against a model that looks at one address at a time.

use std::ops::Range;

use proptest::prelude::*;
use vidar_core::mem::addr::Hpa;
use vidar_core::mem::map::{MemoryKind, MemoryMap, MemoryRegion, RAM_END};
use vidar_core::mem::ranges::RangeSet;

const SPACE: u64 = 64;

/// Returns an address near the bottom, near where RAM has to end, or near the top of the space, so that entries wrap as
/// well.
fn address() -> impl Strategy<Value = u64> {
    prop_oneof![4 => 0..SPACE, 1 => RAM_END.0 - SPACE..RAM_END.0 + SPACE, 1 => u64::MAX - SPACE..=u64::MAX]
}

fn range() -> impl Strategy<Value = Range<Hpa>> {
    (address(), address()).prop_map(|(start, end)| Hpa(start)..Hpa(end))
}

fn regions() -> impl Strategy<Value = Vec<MemoryRegion>> {
    let any =
        (range(), 0u32..8).prop_map(|(range, raw)| MemoryRegion { range, kind: MemoryKind::from_raw(raw) });
    let sized = (address(), 0u64..20, 0u32..3)
        .prop_map(|(base, length, raw)| MemoryRegion::new(Hpa(base), length, MemoryKind::from_raw(raw)));
    prop::collection::vec(prop_oneof![any, sized], 0..12)
}

fn addresses() -> impl Iterator<Item = Hpa> {
    (0..SPACE).chain(RAM_END.0 - SPACE..RAM_END.0 + SPACE).chain(u64::MAX - SPACE..=u64::MAX).map(Hpa)
}

fn is_usable(regions: &[MemoryRegion], address: Hpa) -> bool {
    if address >= RAM_END {
        return false;
    }
    let mut kinds = regions.iter().filter(|region| region.range.contains(&address)).map(|region| region.kind);
    kinds.next() == Some(MemoryKind::Usable) && kinds.all(|kind| kind == MemoryKind::Usable)
}

fn assert_canonical(set: &RangeSet) {
    assert!(set.iter().all(|range| !range.is_empty()));
    assert!(set.windows(2).all(|pair| pair[0].end < pair[1].start));
}

proptest! {
    #[test]
    fn memory_is_usable_only_if_all_entries_agree(regions in regions()) {
        let map = MemoryMap::from_regions(regions.clone());
        let usable = map.usable();
        assert_canonical(&usable);
        for address in addresses() {
            let found = usable.iter().any(|range| range.contains(&address));
            prop_assert_eq!(found, is_usable(&regions, address), "at {}", address);
        }
        prop_assert_eq!(map.ram_top(), usable.iter().map(|range| range.end).max().unwrap_or_default());
        prop_assert_eq!(map.usable_bytes(), usable.bytes());
    }

    #[test]
    fn reserving_changes_nothing_outside(regions in regions(), range in range()) {
        let before = MemoryMap::from_regions(regions);
        let after = before.reserved(&range);
        let kinds = |map: &MemoryMap<'_>, address| -> Vec<_> {
            map.iter().filter(|region| region.range.contains(&address)).map(|region| region.kind).collect()
        };
        for address in addresses() {
            if range.contains(&address) {
                prop_assert_eq!(kinds(&after, address), [MemoryKind::Reserved]);
            } else {
                prop_assert_eq!(kinds(&after, address), kinds(&before, address));
            }
        }
    }

    #[test]
    fn joining_keeps_the_kinds_of_every_address(regions in regions()) {
        let before = MemoryMap::from_regions(regions);
        let after: Vec<_> = before.regions(true).collect();
        let kinds = |regions: &mut dyn Iterator<Item = MemoryRegion>, address| -> Vec<_> {
            let inside = regions.filter(|region| region.range.contains(&address));
            inside.map(|region| region.kind).collect()
        };
        for address in addresses() {
            let expected = kinds(&mut before.iter(), address);
            prop_assert_eq!(kinds(&mut after.iter().cloned(), address), expected, "at {}", address);
        }
        prop_assert!(after.iter().all(|region| !region.range.is_empty()));
        let apart = |pair: &[MemoryRegion]| pair[0].kind != pair[1].kind || pair[0].range.end != pair[1].range.start;
        prop_assert!(after.windows(2).all(apart));
    }

    #[test]
    fn lowest_and_highest_fit_match_a_search(
        ranges in prop::collection::vec((0..SPACE, 0..SPACE), 0..8),
        size in 1u64..20,
        shift in 0u32..5,
        within in range(),
    ) {
        let set: RangeSet = ranges.into_iter().map(|(start, end)| Hpa(start)..Hpa(end)).collect();
        let fits = |start: &Hpa| {
            let range = *start..*start + size;
            start.is_aligned(1 << shift)
                && set.covers(&range)
                && within.start <= range.start
                && range.end <= within.end
        };
        let fitting: Vec<_> = (0..SPACE).map(Hpa).filter(fits).collect();
        prop_assert_eq!(set.lowest_fit(size, 1 << shift, &within), fitting.first().copied());
        prop_assert_eq!(set.highest_fit(size, 1 << shift, &within), fitting.last().copied());
    }
}
