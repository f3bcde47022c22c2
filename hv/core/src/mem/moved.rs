//! Guest pages that lie at other host-physical addresses, because something of Vidar's is in their place.

use core::ops::Range;

use super::addr::{Gpa, Hpa, PAGE_SIZE};
use super::ranges::RangeSet;

/// The guest pages that are moved, all by the same distance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MovedPages {
    pages: RangeSet,
    first: Hpa,
    to: Hpa,
}

impl MovedPages {
    /// Returns the whole pages of `memory` inside `window`, moved to `to`, where there is room for all of the window.
    pub fn new(memory: &RangeSet, window: &Range<Hpa>, to: Hpa) -> Self {
        let mut pages = RangeSet::new();
        for range in memory.iter() {
            let start = range.start.max(window.start).align_up(PAGE_SIZE).unwrap_or(window.end);
            pages.insert(start..range.end.min(window.end).align_down(PAGE_SIZE));
        }
        Self { pages, first: window.start, to }
    }

    /// Returns the guest addresses of the moved pages, as host-physical addresses with the same number.
    pub fn pages(&self) -> impl Iterator<Item = Hpa> {
        self.pages.iter().flat_map(|range| (range.start.0..range.end.0).step_by(PAGE_SIZE as usize).map(Hpa))
    }

    /// Returns where the byte at `address` lies; `None` if it is not moved.
    pub fn place(&self, address: Gpa) -> Option<Hpa> {
        let here = address.identity();
        self.pages.contains(here).then(|| self.to + (here.0 - self.first.0))
    }

    /// Returns true if the range touches a moved page.
    pub fn overlaps(&self, range: &Range<Hpa>) -> bool {
        self.pages.overlaps(range)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Range<Hpa> = Hpa(0x1000)..Hpa(0xa_0000);

    fn moved(pieces: &[Range<u64>]) -> MovedPages {
        let memory = pieces.iter().map(|piece| Hpa(piece.start)..Hpa(piece.end)).collect();
        MovedPages::new(&memory, &WINDOW, Hpa(0x30_0000))
    }

    #[test]
    fn only_whole_pages_in_the_window_are_moved() {
        let moved = moved(&[0..0x3800, 0x5800..0x7000, 0x9_e000..0x9_fc00, 0x10_0000..0x20_0000]);
        let pages: Vec<_> = moved.pages().map(|page| page.0).collect();
        assert_eq!(pages, [0x1000, 0x2000, 0x6000, 0x9_e000]);
        for (address, place) in [(0x1000, 0x30_0000), (0x2fff, 0x30_1fff), (0x9_e123, 0x39_d123)] {
            assert_eq!(moved.place(Gpa(address)), Some(Hpa(place)), "{address:#x}");
        }
        for address in [0, 0xfff, 0x3000, 0x5800, 0x7000, 0x9_f000, 0x10_0000, u64::MAX] {
            assert_eq!(moved.place(Gpa(address)), None, "{address:#x}");
        }
        assert!(moved.overlaps(&(Hpa(0)..Hpa(0x20_0000))) && !moved.overlaps(&(Hpa(0x3000)..Hpa(0x6000))));
    }

    #[test]
    fn memory_without_whole_pages_is_not_moved() {
        let moved = moved(&[0..0x1800, 0x10_0000..0x20_0000]);
        assert_eq!(moved.pages().count(), 0);
        assert_eq!(moved.place(Gpa(0x1000)), None);
    }
}
