//! The machine's memory as its firmware describes it: the e820 map.
//!
//! The guest is handed what the firmware said, entry by entry; only what Vidar keeps is marked reserved in it.
//! Firmware sorts nothing and promises nothing, so entries may overlap, be empty or run past the end of the space, and there
//! may be any number of them: they are read from where the loader has left them each time.

use alloc::borrow::Cow;
use core::fmt;
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

/// Pieces of memory that Vidar itself can reserve in a map.
const MOST_RESERVED: usize = 8;

/// The memory map, in the order in which the firmware gave it.
#[derive(Clone)]
pub struct MemoryMap<'a> {
    entries: Cow<'a, [u8]>,
    entry_size: usize,
    read: fn(&[u8]) -> Option<MemoryRegion>,
    /// What is reserved in it beside what the entries say: as many ranges as `count`.
    reserved: [Range<Hpa>; MOST_RESERVED],
    count: usize,
}

impl<'a> MemoryMap<'a> {
    /// The map whose entries lie side by side in `entries`, `entry_size` bytes each, and are read by `read`. One that it
    /// gives nothing for is left out.
    pub fn new(entries: &'a [u8], entry_size: usize, read: fn(&[u8]) -> Option<MemoryRegion>) -> Self {
        Self {
            entries: Cow::Borrowed(entries),
            entry_size: entry_size.max(1),
            read,
            reserved: [const { Hpa(0)..Hpa(0) }; MOST_RESERVED],
            count: 0,
        }
    }

    /// The regions in firmware order. Where one reaches into what is reserved it is split around that; every other is as the
    /// firmware gave it.
    pub fn iter(&self) -> Regions<'_> {
        Regions {
            entries: self.entries.chunks_exact(self.entry_size),
            read: self.read,
            reserved: self.reserved.get(..self.count).unwrap_or_default(),
            shown: [false; MOST_RESERVED],
            current: None,
        }
    }

    /// The regions in their order. With `join` empty ones are left out, and those are made one that follow each other, are of one
    /// kind and touch.
    pub fn regions(&self, join: bool) -> impl Iterator<Item = MemoryRegion> {
        let mut regions = self.iter().filter(move |region| !(join && region.range.is_empty())).peekable();
        core::iter::from_fn(move || {
            let mut region = regions.next()?;
            while let Some(next) = regions
                .next_if(|next| join && next.kind == region.kind && next.range.start == region.range.end)
            {
                region.range.end = next.range.end;
            }
            Some(region)
        })
    }

    /// The addresses below [`RAM_END`] that are RAM for the operating system. Where entries contradict each other, the
    /// cautious one wins: what any of them calls something else is not usable.
    pub fn usable(&self) -> RangeSet {
        let is_usable = |region: &MemoryRegion| region.kind == MemoryKind::Usable;
        let mut set: RangeSet = self.iter().filter(is_usable).map(below_end).collect();
        self.iter().filter(|region| !is_usable(region)).for_each(|region| set.remove(&region.range));
        set
    }

    /// The addresses that some entry calls memory, be it the operating system's or what firmware keeps tables in.
    pub fn memory(&self) -> RangeSet {
        use MemoryKind::{AcpiNvs, AcpiReclaimable, Usable};
        let is_memory = |region: &MemoryRegion| matches!(region.kind, Usable | AcpiReclaimable | AcpiNvs);
        self.iter().filter(is_memory).map(below_end).collect()
    }

    /// Bytes of RAM for the operating system.
    pub fn usable_bytes(&self) -> u64 {
        self.usable().bytes()
    }

    /// The end of the highest usable RAM; 0 if there is none.
    pub fn ram_top(&self) -> Hpa {
        self.usable().last().map_or(Hpa(0), |range| range.end)
    }

    /// A copy in which `range` is [`MemoryKind::Reserved`].
    pub fn reserved(&self, range: &Range<Hpa>) -> Self {
        let mut map = self.clone();
        if !range.is_empty() {
            let Some(place) = map.reserved.get_mut(map.count) else {
                panic!("Vidar reserves no more than {MOST_RESERVED} pieces of memory")
            };
            *place = range.clone();
            map.count += 1;
        }
        map
    }
}

impl Default for MemoryMap<'_> {
    fn default() -> Self {
        Self::new(&[], 1, |_| None)
    }
}

impl fmt::Debug for MemoryMap<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self).finish()
    }
}

impl<'a> IntoIterator for &'a MemoryMap<'_> {
    type Item = MemoryRegion;
    type IntoIter = Regions<'a>;
    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// The regions of a map.
#[derive(Clone)]
pub struct Regions<'a> {
    entries: core::slice::ChunksExact<'a, u8>,
    read: fn(&[u8]) -> Option<MemoryRegion>,
    reserved: &'a [Range<Hpa>],
    /// Which of `reserved` have been given.
    shown: [bool; MOST_RESERVED],
    /// What is left of the entry that is being given.
    current: Option<MemoryRegion>,
}

impl Regions<'_> {
    /// The next piece of `region`, which may be in the way of what is reserved; the rest is kept for later.
    fn piece(&mut self, region: MemoryRegion) -> Option<MemoryRegion> {
        let overlapping = self.reserved.iter().zip(&mut self.shown);
        let first = overlapping
            .filter(|(reserved, _)| overlaps(*reserved, &region.range))
            .min_by_key(|(reserved, _)| reserved.start);
        let Some((reserved, shown)) = first else { return Some(region) };
        let MemoryRegion { range, kind } = region;
        if range.start < reserved.start {
            self.current = Some(MemoryRegion { range: reserved.start..range.end, kind });
            return Some(MemoryRegion { range: range.start..reserved.start, kind });
        }
        let above = reserved.end..range.end;
        self.current = (!above.is_empty()).then_some(MemoryRegion { range: above, kind });
        // Between the halves of the first entry that it splits, so that a sorted map stays sorted.
        let is_new = !core::mem::replace(shown, true);
        is_new.then(|| MemoryRegion { range: reserved.clone(), kind: MemoryKind::Reserved })
    }
}

impl Iterator for Regions<'_> {
    type Item = MemoryRegion;

    fn next(&mut self) -> Option<MemoryRegion> {
        loop {
            let read = self.read;
            let current = self.current.take();
            match current.or_else(|| self.entries.by_ref().find_map(read)) {
                Some(region) => {
                    if let Some(piece) = self.piece(region) {
                        return Some(piece);
                    }
                }
                None => {
                    let mut rest = self.reserved.iter().zip(&mut self.shown);
                    let (reserved, shown) = rest.find(|(_, shown)| !**shown)?;
                    *shown = true;
                    return Some(MemoryRegion { range: reserved.clone(), kind: MemoryKind::Reserved });
                }
            }
        }
    }
}

fn below_end(region: MemoryRegion) -> Range<Hpa> {
    region.range.start..region.range.end.min(RAM_END)
}

/// Maps that are made of regions, and not of what firmware has left: those of tests.
mod made_up {
    use super::{Cow, Hpa, MemoryKind, MemoryMap, MemoryRegion};

    /// Start, end and kind.
    const ENTRY: usize = 20;

    fn read(entry: &[u8]) -> Option<MemoryRegion> {
        let (&start, rest) = entry.split_first_chunk()?;
        let (&end, rest) = rest.split_first_chunk()?;
        let [start, end] = [start, end].map(u64::from_le_bytes).map(Hpa);
        let kind = MemoryKind::from_raw(u32::from_le_bytes(*rest.first_chunk()?));
        Some(MemoryRegion { range: start..end, kind })
    }

    impl MemoryMap<'static> {
        /// A map of these regions, whatever they are.
        pub fn from_regions(regions: impl IntoIterator<Item = MemoryRegion>) -> Self {
            let entry = |MemoryRegion { range, kind }: MemoryRegion| {
                let mut entry = [0; ENTRY];
                let (addresses, raw) = entry.split_at_mut(16);
                addresses.copy_from_slice([range.start.0, range.end.0].map(u64::to_le_bytes).as_flattened());
                raw.copy_from_slice(&kind.to_raw().to_le_bytes());
                entry
            };
            let entries = Cow::Owned(regions.into_iter().flat_map(entry).collect());
            Self { entries, ..Self::new(&[], ENTRY, read) }
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

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
        let listed = |map: &MemoryMap<'_>| map.iter().collect::<Vec<_>>();
        assert_eq!(listed(&map.reserved(&(Hpa(22)..Hpa(26)))), listed(&reserved));
        assert_eq!(listed(&map.reserved(&(Hpa(5)..Hpa(5)))), listed(&map));
        assert_eq!(
            map.reserved(&(Hpa(50)..Hpa(60))).iter().last(),
            Some(region(50, 60, MemoryKind::Reserved))
        );
    }

    #[test]
    fn several_pieces_are_reserved_at_their_places() {
        let map = MemoryMap::from_regions([region(0, 10, MemoryKind::Usable)]);
        let map = map.reserved(&(Hpa(8)..Hpa(20))).reserved(&(Hpa(2)..Hpa(4)));
        let expected = [
            region(0, 2, MemoryKind::Usable),
            region(2, 4, MemoryKind::Reserved),
            region(4, 8, MemoryKind::Usable),
            region(8, 20, MemoryKind::Reserved),
        ];
        assert_eq!(map.iter().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn neighbours_of_one_kind_are_joined() {
        let map = MemoryMap::from_regions([
            region(0, 10, MemoryKind::Usable),
            region(5, 5, MemoryKind::Reserved),
            region(10, 20, MemoryKind::Usable),
            region(20, 30, MemoryKind::AcpiNvs),
            region(30, 40, MemoryKind::Usable),
            region(41, 50, MemoryKind::Usable),
        ]);
        let expected = [
            region(0, 20, MemoryKind::Usable),
            region(20, 30, MemoryKind::AcpiNvs),
            region(30, 40, MemoryKind::Usable),
            region(41, 50, MemoryKind::Usable),
        ];
        assert_eq!(map.regions(true).collect::<Vec<_>>(), expected);
    }
}
