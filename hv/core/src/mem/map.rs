//! The memory map of the machine as its firmware describes it: the e820 map.
//!
//! The guest is handed the firmware's entries one by one; only Vidar's own memory is marked as reserved in them.
//!
//! Firmware need not sort the entries. They may overlap, be empty or reach beyond the 64-bit space, and there may be
//! any number of them. So they stay where the boot loader has put them, and are read from there each time.

use alloc::borrow::Cow;
use core::fmt;
use core::ops::Range;

use super::addr::{Hpa, overlaps};
use super::ranges::RangeSet;

/// The highest address at which RAM may end: 64 TiB, as in Linux with four-level page tables (its MAX_PHYSMEM_BITS).
/// Entries beyond it are firmware errors.
pub const RAM_END: Hpa = Hpa(1 << 46);

/// The type of a memory region. ACPI Specification 6.5, 15 "System Address Map Interfaces", table "Address Range
/// Types".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemoryKind {
    /// RAM for the operating system.
    Usable,
    /// Memory that the operating system must not use: the firmware's, devices' and Vidar's.
    Reserved,
    /// RAM that holds ACPI tables. The operating system may use it once it has read them.
    AcpiReclaimable,
    /// RAM that the firmware needs across a suspend.
    AcpiNvs,
    /// RAM in which errors have been found.
    Unusable,
    /// Any other type number. Vidar does not use such memory, but passes the number on to the guest.
    Other(u32),
}

impl MemoryKind {
    /// Returns the type number of an e820 entry of this kind.
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

    /// Returns the kind for the type number of an e820 entry.
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

/// An entry of the memory map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryRegion {
    /// The addresses, exact to the byte, because firmware need not align them. An inverted range is empty.
    pub range: Range<Hpa>,
    /// The type of the memory.
    pub kind: MemoryKind,
}

impl MemoryRegion {
    /// Returns the region of `length` bytes from `base` on. A region that reaches beyond the 64-bit space is cut off
    /// there.
    pub const fn new(base: Hpa, length: u64, kind: MemoryKind) -> Self {
        Self { range: base..Hpa(base.0.saturating_add(length)), kind }
    }
}

/// Number of ranges that can be reserved in a map.
const MAX_RESERVED: usize = 8;

/// A memory map, in the order in which the firmware lists it.
#[derive(Clone)]
pub struct MemoryMap<'a> {
    entries: Cow<'a, [u8]>,
    entry_size: usize,
    read: fn(&[u8]) -> Option<MemoryRegion>,
    /// The ranges that are reserved in addition to the entries; the first `count` are valid.
    reserved: [Range<Hpa>; MAX_RESERVED],
    count: usize,
}

impl<'a> MemoryMap<'a> {
    /// Returns the map of the entries in `entries`, which have `entry_size` bytes each. `read` decodes one entry, or
    /// returns `None` for an entry that is to be left out.
    pub fn new(entries: &'a [u8], entry_size: usize, read: fn(&[u8]) -> Option<MemoryRegion>) -> Self {
        Self {
            entries: Cow::Borrowed(entries),
            entry_size: entry_size.max(1),
            read,
            reserved: [const { Hpa(0)..Hpa(0) }; MAX_RESERVED],
            count: 0,
        }
    }

    /// Returns the regions in the firmware's order. A region that overlaps a reserved range is split around it; all
    /// other regions are returned unchanged.
    pub fn iter(&self) -> Regions<'_> {
        Regions {
            entries: self.entries.chunks_exact(self.entry_size),
            read: self.read,
            reserved: self.reserved.get(..self.count).unwrap_or_default(),
            shown: [false; MAX_RESERVED],
            current: None,
        }
    }

    /// Returns the regions in the firmware's order. With `join`, empty regions are left out, and regions of the same
    /// kind that follow and touch each other are joined.
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

    /// Returns the addresses below [`RAM_END`] that are RAM for the operating system. An address counts as usable only
    /// if every entry that contains it says so.
    pub fn usable(&self) -> RangeSet {
        let is_usable = |region: &MemoryRegion| region.kind == MemoryKind::Usable;
        let mut set: RangeSet = self.iter().filter(is_usable).map(below_end).collect();
        self.iter().filter(|region| !is_usable(region)).for_each(|region| set.remove(&region.range));
        set
    }

    /// Returns the addresses below [`RAM_END`] that some entry calls memory: RAM for the operating system, and RAM that
    /// holds the firmware's tables.
    pub fn memory(&self) -> RangeSet {
        use MemoryKind::{AcpiNvs, AcpiReclaimable, Usable};
        let is_memory = |region: &MemoryRegion| matches!(region.kind, Usable | AcpiReclaimable | AcpiNvs);
        self.iter().filter(is_memory).map(below_end).collect()
    }

    /// Returns the number of bytes of RAM for the operating system.
    pub fn usable_bytes(&self) -> u64 {
        self.usable().bytes()
    }

    /// Returns the end of the highest usable RAM; 0 if there is none.
    pub fn ram_top(&self) -> Hpa {
        self.usable().last().map_or(Hpa(0), |range| range.end)
    }

    /// Returns a copy of the map in which `range` is [`MemoryKind::Reserved`].
    ///
    /// # Panics
    /// If more than 8 ranges are reserved.
    pub fn reserved(&self, range: &Range<Hpa>) -> Self {
        let mut map = self.clone();
        if !range.is_empty() {
            let Some(place) = map.reserved.get_mut(map.count) else {
                panic!("only {MAX_RESERVED} ranges can be reserved in a memory map")
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

/// An iterator over the regions of a map.
#[derive(Clone)]
pub struct Regions<'a> {
    entries: core::slice::ChunksExact<'a, u8>,
    read: fn(&[u8]) -> Option<MemoryRegion>,
    reserved: &'a [Range<Hpa>],
    /// True for each range of `reserved` that has been returned.
    shown: [bool; MAX_RESERVED],
    /// The rest of the entry that is being split.
    current: Option<MemoryRegion>,
}

impl Regions<'_> {
    /// Returns the first piece of `region`, which may overlap reserved ranges, and keeps the rest for later. Returns
    /// `None` if that piece is reserved and has been returned before.
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
        // A reserved range is returned between the halves of the first entry that it splits, so that a sorted map stays
        // sorted.
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

/// Maps that are made from regions instead of the firmware's entries, for tests.
mod from_regions {
    use super::{Cow, Hpa, MemoryKind, MemoryMap, MemoryRegion};

    /// Size in bytes of such an entry: start, end and type.
    const ENTRY: usize = 20;

    fn read(entry: &[u8]) -> Option<MemoryRegion> {
        let (&start, rest) = entry.split_first_chunk()?;
        let (&end, rest) = rest.split_first_chunk()?;
        let [start, end] = [start, end].map(u64::from_le_bytes).map(Hpa);
        let kind = MemoryKind::from_raw(u32::from_le_bytes(*rest.first_chunk()?));
        Some(MemoryRegion { range: start..end, kind })
    }

    impl MemoryMap<'static> {
        /// Returns a map of these regions.
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
    fn kinds_convert_to_type_numbers_and_back() {
        for raw in 0..=20 {
            assert_eq!(MemoryKind::from_raw(raw).to_raw(), raw);
        }
        assert_eq!(MemoryKind::from_raw(7), MemoryKind::Other(7));
    }

    #[test]
    fn region_beyond_the_64_bit_space_is_cut_off() {
        let last = MemoryRegion::new(Hpa(u64::MAX - 1), 8, MemoryKind::Usable);
        assert_eq!(last.range, Hpa(u64::MAX - 1)..Hpa(u64::MAX));
    }

    #[test]
    fn memory_is_usable_only_if_all_entries_agree() {
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
    fn reserving_splits_only_overlapping_entries() {
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
    fn several_ranges_can_be_reserved() {
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
    fn adjacent_regions_of_the_same_kind_are_joined() {
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
