//! More memory for Vidar than its region: a machine with many CPUs, or with much memory in small pages, needs it.

use core::ops::Range;

use crate::mem::addr::{Hpa, PAGE_SIZE, PageSize};
use crate::mem::map::MemoryMap;

/// Heap that a CPU's block, segments and interrupt table take, and what is noted of it.
const HEAP_PER_CPU: u64 = PAGE_SIZE;
/// Frames that are for second-stage tables on any machine: devices, MTRRs and holes split large pages.
const TABLES: u64 = 96;
/// Second-stage tables that the two ends of a piece of memory may take.
const TABLES_PER_PIECE: u64 = 4;
/// The unit in which it is taken: so the guest's second stage stays large around it.
const UNIT: u64 = PageSize::Size2M.bytes();
/// Where the BIOS, and starting CPUs, have theirs.
const LEGACY: u64 = 1 << 20;

/// What a machine needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Need {
    /// Further CPUs.
    pub cpus: u64,
    /// Frames that each of them takes.
    pub frames_per_cpu: u64,
    /// Frames for the second stage.
    pub tables: u64,
}

impl Need {
    /// Frames for the second stage of a machine with this memory, in pages of at most `largest`.
    pub fn tables(map: &MemoryMap<'_>, largest: PageSize) -> u64 {
        let usable = map.usable();
        let of_pages =
            if largest == PageSize::Size1G { 0 } else { map.ram_top().0 >> PageSize::Size1G.shift() };
        TABLES + TABLES_PER_PIECE * usable.len() as u64 + of_pages
    }

    /// Bytes of heap and of frames, in this order, that are wanted beside `available` frames; `None` where they suffice.
    pub fn beside(&self, available: u64) -> Option<(u64, u64)> {
        let frames = self.cpus * self.frames_per_cpu + self.tables;
        let missing = frames.checked_sub(available).filter(|missing| *missing > 0)?;
        let heap = (self.cpus + 1) * HEAP_PER_CPU;
        let all = (heap + missing * PAGE_SIZE).next_multiple_of(UNIT);
        Some((heap, all - heap))
    }
}

/// Where `size` bytes are, as high as they can be: neither in the kernel's way nor where devices of little reach want memory.
pub fn place(map: &MemoryMap<'_>, taken: impl Iterator<Item = Range<Hpa>>, size: u64) -> Option<Range<Hpa>> {
    let mut free = map.usable();
    taken.for_each(|range| free.remove(&range));
    let start = free.highest_fit(size, UNIT, &(Hpa(LEGACY)..Hpa(u64::MAX)))?;
    Some(start..start + size)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mem::map::{MemoryKind, MemoryRegion};

    const GIB: u64 = 1 << 30;

    fn map(pieces: &[(u64, u64)]) -> MemoryMap<'static> {
        let region = |&(start, end): &(u64, u64)| MemoryRegion {
            range: Hpa(start)..Hpa(end),
            kind: MemoryKind::Usable,
        };
        MemoryMap::from_regions(pieces.iter().map(region))
    }

    #[test]
    fn a_small_machine_needs_none() {
        let small = map(&[(0, 0x9_f000), (LEGACY, GIB)]);
        let tables = Need::tables(&small, PageSize::Size1G);
        assert_eq!(tables, 104);
        assert_eq!(Need { cpus: 3, frames_per_cpu: 16, tables }.beside(370), None);
        assert_eq!(Need { cpus: 3, frames_per_cpu: 16, tables: 322 }.beside(370), None);
    }

    #[test]
    fn many_cpus_and_small_pages_want_more() {
        let need = Need { cpus: 255, frames_per_cpu: 16, tables: 104 };
        let (heap, frames) = need.beside(370).expect("not enough");
        assert_eq!(heap, 256 * PAGE_SIZE);
        assert!(frames / PAGE_SIZE + 370 >= 255 * 16 + 104);
        assert_eq!((heap + frames) % UNIT, 0);
        assert!(heap + frames < 20 << 20);
        let large = map(&[(0, 0x9_f000), (LEGACY, 3 * GIB), (4 * GIB, 1024 * GIB)]);
        assert_eq!(Need::tables(&large, PageSize::Size2M), 96 + 3 * 4 + 1024);
    }

    #[test]
    fn it_goes_high_and_into_nothing() {
        let map = map(&[(0, 0x9_f000), (LEGACY, 3 * GIB), (4 * GIB, 6 * GIB + 0x1000)]);
        assert_eq!(place(&map, [].into_iter(), 2 * UNIT), Some(Hpa(6 * GIB - 2 * UNIT)..Hpa(6 * GIB)));
        let taken = [Hpa(4 * GIB)..Hpa(6 * GIB), Hpa(3 * GIB - 1)..Hpa(3 * GIB)];
        assert_eq!(place(&map, taken.into_iter(), UNIT), Some(Hpa(3 * GIB - 2 * UNIT)..Hpa(3 * GIB - UNIT)));
        assert_eq!(place(&map, [Hpa(LEGACY)..Hpa(7 * GIB)].into_iter(), UNIT), None);
    }
}
