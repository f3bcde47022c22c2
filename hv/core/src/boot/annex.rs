//! The annex: memory that Vidar takes in addition to its region. A machine needs one if it has many CPUs, or much
//! memory that is mapped in small pages.

use core::ops::Range;

use crate::mem::addr::{Hpa, PAGE_SIZE, PageSize};
use crate::mem::map::MemoryMap;

/// Heap for each CPU in bytes: its per-CPU block, segments and interrupt table, and the data kept about it.
const HEAP_PER_CPU: u64 = PAGE_SIZE;
/// Frames for second-stage tables on any machine: devices, MTRRs and holes in memory split large pages.
const TABLES: u64 = 96;
/// Number of second-stage tables that the two ends of a piece of memory may need.
const TABLES_PER_PIECE: u64 = 4;
/// Frames for the tables of Vidar's own that map the trampoline of further CPUs at its own address: one for each level
/// but the first, which is there.
const IDENTITY_TABLES: u64 = 3;
/// Size and alignment of the annex are multiples of this, so that the second stage keeps its large pages around it.
pub const UNIT: u64 = PageSize::Size2M.bytes();
/// End of the memory that the BIOS and starting CPUs use.
const LEGACY: u64 = 1 << 20;

/// What a machine needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Need {
    /// Number of further CPUs.
    pub cpus: u64,
    /// Number of frames for each further CPU.
    pub frames_per_cpu: u64,
    /// Number of frames for tables of the second stage and of IOMMUs.
    pub tables: u64,
    /// Number of frames for moved memory, which follow each other.
    pub low_memory: u64,
    /// Number of frames for the trace of each CPU, which follow each other.
    pub frames_per_ring: u64,
}

impl Need {
    /// Returns the number of frames for the second-stage tables of a machine with this memory, in pages of at most
    /// `largest`.
    pub fn tables(map: &MemoryMap<'_>, largest: PageSize) -> u64 {
        let usable = map.usable();
        let of_pages =
            if largest == PageSize::Size1G { 0 } else { map.ram_top().0 >> PageSize::Size1G.shift() };
        TABLES + TABLES_PER_PIECE * usable.len() as u64 + of_pages
    }

    /// Returns how many bytes of heap and of frames, in this order, are needed in addition to `available` frames;
    /// `None` if these suffice. Frames that follow each other are new ones, since the others are used one by one.
    pub fn beyond(&self, available: u64) -> Option<(u64, u64)> {
        let runs = self.low_memory + (self.cpus + 1) * self.frames_per_ring;
        let frames = self.cpus * self.frames_per_cpu + self.tables + IDENTITY_TABLES + runs;
        let missing = frames.checked_sub(available).filter(|missing| *missing > 0)?.max(runs);
        let heap = (self.cpus + 1) * HEAP_PER_CPU;
        let all = (heap + missing * PAGE_SIZE).next_multiple_of(UNIT);
        Some((heap, all - heap))
    }
}

/// Returns the highest free place for `size` bytes, aligned to `align`, that is outside of `taken`; `None` if there is
/// none. High memory is in the way of neither the kernel nor devices that reach only low addresses.
pub fn place(
    map: &MemoryMap<'_>,
    taken: impl Iterator<Item = Range<Hpa>>,
    size: u64,
    align: u64,
) -> Option<Range<Hpa>> {
    let mut free = map.usable();
    taken.for_each(|range| free.remove(&range));
    let start = free.highest_fit(size, align, &(Hpa(LEGACY)..Hpa(u64::MAX)))?;
    Some(start..start + size)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mem::map::{MemoryKind, MemoryRegion};

    const GIB: u64 = 1 << 30;
    const NOTHING: Need = Need { cpus: 0, frames_per_cpu: 0, tables: 0, low_memory: 0, frames_per_ring: 0 };

    fn map(pieces: &[(u64, u64)]) -> MemoryMap<'static> {
        let region = |&(start, end): &(u64, u64)| MemoryRegion {
            range: Hpa(start)..Hpa(end),
            kind: MemoryKind::Usable,
        };
        MemoryMap::from_regions(pieces.iter().map(region))
    }

    #[test]
    fn small_machine_needs_no_annex() {
        let small = map(&[(0, 0x9_f000), (LEGACY, GIB)]);
        let tables = Need::tables(&small, PageSize::Size1G);
        assert_eq!(tables, 104);
        assert_eq!(Need { cpus: 3, frames_per_cpu: 16, tables, ..NOTHING }.beyond(370), None);
        assert_eq!(Need { cpus: 3, frames_per_cpu: 16, tables: 319, ..NOTHING }.beyond(370), None);
        let with_identity_tables = Need { cpus: 3, frames_per_cpu: 16, tables: 320, ..NOTHING }.beyond(370);
        assert!(with_identity_tables.is_some(), "the trampoline's tables are left without frames");
    }

    #[test]
    fn many_cpus_and_small_pages_need_an_annex() {
        let need = Need { cpus: 255, frames_per_cpu: 16, tables: 104, ..NOTHING };
        let (heap, frames) = need.beyond(370).expect("370 frames do not suffice");
        assert_eq!(heap, 256 * PAGE_SIZE);
        assert!(frames / PAGE_SIZE + 370 >= 255 * 16 + 104);
        assert_eq!((heap + frames) % UNIT, 0);
        assert!(heap + frames < 20 << 20);
        let large = map(&[(0, 0x9_f000), (LEGACY, 3 * GIB), (4 * GIB, 1024 * GIB)]);
        assert_eq!(Need::tables(&large, PageSize::Size2M), 96 + 3 * 4 + 1024);
    }

    #[test]
    fn an_annex_holds_all_frames_that_follow_each_other() {
        let need = Need { cpus: 7, frames_per_cpu: 16, tables: 104, low_memory: 0, frames_per_ring: 64 };
        assert_eq!(need.beyond(731), None);
        let (_, frames) = need.beyond(730).expect("one frame is missing");
        assert!(frames / PAGE_SIZE >= 8 * 64, "{frames}");
        let (_, frames) = Need { low_memory: 512, ..need }.beyond(730).expect("513 frames are missing");
        assert!(frames / PAGE_SIZE >= 8 * 64 + 512, "{frames}");
    }

    #[test]
    fn annex_takes_the_highest_free_place() {
        let map = map(&[(0, 0x9_f000), (LEGACY, 3 * GIB), (4 * GIB, 6 * GIB + 0x1000)]);
        assert_eq!(place(&map, [].into_iter(), 2 * UNIT, UNIT), Some(Hpa(6 * GIB - 2 * UNIT)..Hpa(6 * GIB)));
        let end = 6 * GIB + 0x1000;
        assert_eq!(place(&map, [].into_iter(), 0x1000, 0x1000), Some(Hpa(end - 0x1000)..Hpa(end)));
        let taken = [Hpa(4 * GIB)..Hpa(6 * GIB), Hpa(3 * GIB - 1)..Hpa(3 * GIB)];
        assert_eq!(
            place(&map, taken.into_iter(), UNIT, UNIT),
            Some(Hpa(3 * GIB - 2 * UNIT)..Hpa(3 * GIB - UNIT))
        );
        assert_eq!(place(&map, [Hpa(LEGACY)..Hpa(7 * GIB)].into_iter(), UNIT, UNIT), None);
    }
}
