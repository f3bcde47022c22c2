//! The memory that the guest may read and execute, but not write to.

use core::ops::Range;

use super::addr::{Gpa, Hpa, PAGE_SIZE, overlaps};

/// The locked memory: whole pages of 4 KiB, at the addresses that the guest gives them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Locks {
    data: [Range<Gpa>; 2],
    text: Range<Gpa>,
}

/// Why the pages at an address cannot be written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lock {
    /// The pages hold data that never changes, so each write to them is refused.
    Data,
    /// The pages hold code, which the kernel changes in ordinary work. A write to them is counted and let through.
    Text,
}

/// How much of a page is locked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Nothing.
    None,
    /// Some of it, or all of it for different reasons, so that it has to be divided.
    Some,
    /// All of it.
    All(Lock),
}

impl Locks {
    /// Returns the locks of the whole pages in these ranges.
    pub fn new(data: [Range<Gpa>; 2], text: Range<Gpa>) -> Self {
        Self { data: data.map(whole_pages), text: whole_pages(text) }
    }

    /// Returns how much of a page is locked. The code is locked in pages of 4 KiB, so that each can be opened by
    /// itself.
    pub fn part(&self, page: &Range<Gpa>) -> Part {
        let ranges = || self.data.iter().chain([&self.text]).filter(|range| !range.is_empty());
        if !ranges().any(|range| overlaps(range, page)) {
            return Part::None;
        }
        let within = |range: &Range<Gpa>| range.start <= page.start && page.end <= range.end;
        if self.data.iter().any(within) {
            Part::All(Lock::Data)
        } else if within(&self.text) && page.end.0 - page.start.0 == PAGE_SIZE {
            Part::All(Lock::Text)
        } else {
            Part::Some
        }
    }

    /// Returns all ranges.
    pub fn ranges(&self) -> impl Iterator<Item = &Range<Gpa>> {
        self.data.iter().chain([&self.text])
    }

    /// Returns the same ranges as host-physical addresses with the same numbers.
    pub fn places(&self) -> impl Iterator<Item = Range<Hpa>> {
        self.ranges().map(|range| range.start.identity()..range.end.identity())
    }
}

/// Returns the whole pages in `range`, which may be none.
fn whole_pages(range: Range<Gpa>) -> Range<Gpa> {
    match range.start.align_up(PAGE_SIZE) {
        Some(start) if start < range.end => start..range.end.align_down(PAGE_SIZE).max(start),
        _ => Range::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(locks: &Locks, page: Range<u64>) -> Part {
        locks.part(&(Gpa(page.start)..Gpa(page.end)))
    }

    #[test]
    fn a_page_is_locked_if_all_of_it_is() {
        let locks = Locks::new(
            [Gpa(0x40_0000)..Gpa(0x60_3000), Gpa(0x80_1000)..Gpa(0x80_2000)],
            Gpa(0x20_0000)..Gpa(0x40_0000),
        );
        for (page, expected) in [
            (0..0x20_0000, Part::None),
            (0x20_0000..0x40_0000, Part::Some),
            (0x20_0000..0x20_1000, Part::All(Lock::Text)),
            (0x3f_f000..0x40_0000, Part::All(Lock::Text)),
            (0x40_0000..0x60_0000, Part::All(Lock::Data)),
            (0x40_0000..0x40_1000, Part::All(Lock::Data)),
            (0x60_0000..0x80_0000, Part::Some),
            (0x60_2000..0x60_3000, Part::All(Lock::Data)),
            (0x60_3000..0x60_4000, Part::None),
            (0x80_0000..0x80_1000, Part::None),
            (0x80_1000..0x80_2000, Part::All(Lock::Data)),
            (0..0x4000_0000, Part::Some),
        ] {
            assert_eq!(part(&locks, page.clone()), expected, "{page:x?}");
        }
    }

    #[test]
    fn only_whole_pages_are_locked() {
        let locks = Locks::new(
            [Gpa(0x1001)..Gpa(0x3fff), Gpa(0x5001)..Gpa(0x5fff)],
            Gpa(u64::MAX - 5)..Gpa(u64::MAX),
        );
        let pages: Vec<_> = (0..8)
            .filter(|page| part(&locks, page * PAGE_SIZE..(page + 1) * PAGE_SIZE) != Part::None)
            .collect();
        assert_eq!(pages, [2]);
        assert_eq!(part(&Locks::default(), 0..u64::MAX), Part::None);
    }
}
