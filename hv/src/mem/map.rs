//! The machine's memory as its firmware describes it: the e820 map.
//!
//! The guest is handed what the firmware said, entry by entry; only what Vidar keeps is marked reserved in it.
//! Firmware sorts nothing and promises nothing, so entries may overlap, be empty or run past the end of the space.

use alloc::vec::Vec;
use core::ops::Range;

use super::addr::{Hpa, overlaps};
use super::ranges::RangeSet;

/// Where RAM ends at the latest: 64 TiB, as Linux has it with page tables of four levels (its MAX_PHYSMEM_BITS). Entries
/// that promise more come from firmware with a fault.
pub const RAM_END: Hpa = Hpa(1 << 46);

/// What a region of memory is for: ACPI 6.5, 15 "System Address Map Interfaces", table "Address Range Types".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemoryKind {
    /// RAM for the operating system.
    Usable,
    /// Not for the operating system: firmware, devices, and Vidar.
    Reserved,
    /// RAM that holds the ACPI tables until the operating system has read them.
    AcpiReclaimable,
    /// RAM that the firmware needs across a suspend.
    AcpiNvs,
    /// RAM in which errors have been found.
    Unusable,
    /// Any other number. Not usable RAM for Vidar, but passed on to the guest, which may know it.
    Other(u32),
}

impl MemoryKind {
    /// The number that stands for this kind in an e820 entry.
    pub const fn to_raw(self) -> u32 {
        match self {
            Self::Usable => 1,
            Self::Reserved => 2,
            Self::AcpiReclaimable => 3,
            Self::AcpiNvs => 4,
            Self::Unusable => 5,
            Self::Other(raw) => raw,
        }
    }

    /// The kind behind an e820 number.
    pub const fn from_raw(raw: u32) -> Self {
        match raw {
            1 => Self::Usable,
            2 => Self::Reserved,
            3 => Self::AcpiReclaimable,
            4 => Self::AcpiNvs,
            5 => Self::Unusable,
            _ => Self::Other(raw),
        }
    }
}

/// One entry of the map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryRegion {
    /// The addresses, byte by byte: firmware need not align them. An inverted range is empty.
    pub range: Range<Hpa>,
    /// What they are for.
    pub kind: MemoryKind,
}

impl MemoryRegion {
    /// The region of `length` bytes from `base` on; one that runs past the end of the space is cut there.
    pub const fn new(base: Hpa, length: u64, kind: MemoryKind) -> Self {
        Self { range: base..Hpa(base.0.saturating_add(length)), kind }
    }
}

/// The memory map, in the order in which the firmware gave it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MemoryMap {
    regions: Vec<MemoryRegion>,
}

impl MemoryMap {
    /// A map of these regions, whatever they are.
    pub fn from_regions(regions: impl IntoIterator<Item = MemoryRegion>) -> Self {
        Self { regions: regions.into_iter().collect() }
    }

    /// The regions in firmware order.
    pub fn iter(&self) -> core::slice::Iter<'_, MemoryRegion> {
        self.regions.iter()
    }

    /// The addresses below [`RAM_END`] that are RAM for the operating system. Where entries contradict each other, the
    /// cautious one wins: what any of them calls something else is not usable.
    pub fn usable(&self) -> RangeSet {
        let (usable, other): (Vec<_>, Vec<_>) =
            self.regions.iter().partition(|region| region.kind == MemoryKind::Usable);
        let below_end = |region: &MemoryRegion| region.range.start..region.range.end.min(RAM_END);
        let mut set: RangeSet = usable.into_iter().map(below_end).collect();
        for region in other {
            set.remove(&region.range);
        }
        set
    }

    /// The addresses that some entry calls memory, be it the operating system's or what firmware keeps tables in.
    pub fn memory(&self) -> RangeSet {
        use MemoryKind::{AcpiNvs, AcpiReclaimable, Usable};
        let is_memory = |region: &&MemoryRegion| matches!(region.kind, Usable | AcpiReclaimable | AcpiNvs);
        let below_end = |region: &MemoryRegion| region.range.start..region.range.end.min(RAM_END);
        self.regions.iter().filter(is_memory).map(below_end).collect()
    }

    /// Bytes of RAM for the operating system.
    pub fn usable_bytes(&self) -> u64 {
        self.usable().bytes()
    }

    /// The end of the highest usable RAM; 0 if there is none.
    pub fn ram_top(&self) -> Hpa {
        self.usable().last().map_or(Hpa(0), |range| range.end)
    }

    /// A copy in which `range` is [`MemoryKind::Reserved`]. Entries that reach into it are split around it;
    /// every other entry stays as the firmware gave it.
    pub fn reserved(&self, range: &Range<Hpa>) -> Self {
        if range.is_empty() {
            return self.clone();
        }
        let mut reserved = Some(MemoryRegion { range: range.clone(), kind: MemoryKind::Reserved });
        let mut regions = Vec::with_capacity(self.regions.len() + 2);
        for region in &self.regions {
            if !overlaps(&region.range, range) {
                regions.push(region.clone());
                continue;
            }
            let below = region.range.start..range.start;
            let above = range.end..region.range.end;
            let piece =
                |range: Range<Hpa>| (!range.is_empty()).then_some(MemoryRegion { range, kind: region.kind });
            regions.extend(piece(below));
            // Between the halves of the first entry that it splits, so that a sorted map stays sorted.
            regions.extend(reserved.take());
            regions.extend(piece(above));
        }
        regions.extend(reserved);
        Self { regions }
    }

    /// A map that says the same of every address in as few entries as can be: sorted, none empty, and those of one kind
    /// joined where they touch or overlap.
    pub fn joined(&self) -> Self {
        let mut kinds: Vec<(MemoryKind, RangeSet)> = Vec::new();
        for MemoryRegion { range, kind } in &self.regions {
            match kinds.iter_mut().find(|(known, _)| known == kind) {
                Some((_, set)) => set.insert(range.clone()),
                None => kinds.push((*kind, [range.clone()].into())),
            }
        }
        let regions = kinds.iter().flat_map(|(kind, set)| {
            set.iter().map(|range| MemoryRegion { range: range.clone(), kind: *kind })
        });
        let mut regions: Vec<_> = regions.collect();
        regions.sort_by_key(|region| region.range.start);
        Self { regions }
    }
}

impl<'a> IntoIterator for &'a MemoryMap {
    type Item = &'a MemoryRegion;
    type IntoIter = core::slice::Iter<'a, MemoryRegion>;
    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn region(start: u64, end: u64, kind: MemoryKind) -> MemoryRegion {
        MemoryRegion { range: Hpa(start)..Hpa(end), kind }
    }

    #[test]
    fn kinds_keep_their_number() {
        for raw in 0..=20 {
            assert_eq!(MemoryKind::from_raw(raw).to_raw(), raw);
        }
        assert_eq!(MemoryKind::from_raw(7), MemoryKind::Other(7));
    }

    #[test]
    fn a_region_past_the_end_of_the_space_is_cut() {
        let last = MemoryRegion::new(Hpa(u64::MAX - 1), 8, MemoryKind::Usable);
        assert_eq!(last.range, Hpa(u64::MAX - 1)..Hpa(u64::MAX));
    }

    #[test]
    fn usable_yields_to_every_other_kind() {
        let map = MemoryMap::from_regions([
            region(0x10_0000, 0x40_0000, MemoryKind::Usable),
            region(0, 0x9_fc00, MemoryKind::Usable),
            region(0x20_0000, 0x20_1000, MemoryKind::AcpiNvs),
            region(0x40_0000, 0x50_0000, MemoryKind::Usable),
        ]);
        let expected =
            [Hpa(0)..Hpa(0x9_fc00), Hpa(0x10_0000)..Hpa(0x20_0000), Hpa(0x20_1000)..Hpa(0x50_0000)];
        assert_eq!(&*map.usable(), expected);
        assert_eq!(map.ram_top(), Hpa(0x50_0000));
    }

    #[test]
    fn reserving_splits_the_entries_it_touches_alone() {
        let map = MemoryMap::from_regions([
            region(0, 10, MemoryKind::Usable),
            region(7, 7, MemoryKind::Usable),
            region(20, 30, MemoryKind::Other(12)),
            region(24, 40, MemoryKind::Usable),
        ]);
        let reserved = MemoryMap::from_regions([
            region(0, 10, MemoryKind::Usable),
            region(7, 7, MemoryKind::Usable),
            region(20, 22, MemoryKind::Other(12)),
            region(22, 26, MemoryKind::Reserved),
            region(26, 30, MemoryKind::Other(12)),
            region(26, 40, MemoryKind::Usable),
        ]);
        assert_eq!(map.reserved(&(Hpa(22)..Hpa(26))), reserved);
        assert_eq!(map.reserved(&(Hpa(5)..Hpa(5))), map);
        assert_eq!(
            map.reserved(&(Hpa(50)..Hpa(60))).iter().last(),
            Some(&region(50, 60, MemoryKind::Reserved))
        );
    }
}
