//! Sets of physical addresses, to compute which memory is free and where something fits.

use alloc::vec::Vec;
use core::ops::{Deref, Range};

use super::addr::{Hpa, overlaps};

/// Number of ranges that a set can hold. No known machine has a tenth of it.
pub const MAX_RANGES: usize = 512;

/// A set of addresses, stored as sorted, disjoint, non-empty ranges with a gap between any two.
///
/// The set dereferences to a slice of these ranges. If there would be more than [`MAX_RANGES`], the smallest are left
/// out, so that a set may lack addresses but never has wrong ones.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RangeSet(Vec<Range<Hpa>>);

impl RangeSet {
    /// Returns an empty set.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Adds every address of `range`. An empty or inverted range has none.
    pub fn insert(&mut self, range: Range<Hpa>) {
        if range.is_empty() {
            return;
        }
        let mut joined = range;
        // Ranges that only touch are joined as well, so that `covers` need look only at single ranges.
        self.0.retain(|other| {
            let apart = other.end < joined.start || joined.end < other.start;
            if !apart {
                joined.start = joined.start.min(other.start);
                joined.end = joined.end.max(other.end);
            }
            apart
        });
        self.insert_apart(joined);
    }

    /// Removes every address of `range`.
    pub fn remove(&mut self, range: &Range<Hpa>) {
        let mut divided = None;
        self.0.retain_mut(|other| {
            if !overlaps(other, range) {
                return true;
            }
            let (below, above) = (other.start..range.start, range.end..other.end);
            if below.is_empty() {
                *other = above;
            } else {
                *other = below;
                divided = Some(above).filter(|above| !above.is_empty()).or(divided.take());
            }
            !other.is_empty()
        });
        // The ranges are disjoint, so at most one of them has `range` strictly inside.
        divided.into_iter().for_each(|above| self.insert_apart(above));
    }

    /// Adds a range that touches no other range of the set.
    fn insert_apart(&mut self, range: Range<Hpa>) {
        let size = |range: &Range<Hpa>| range.end.0 - range.start.0;
        if self.0.len() >= MAX_RANGES {
            let smallest = (0..self.0.len()).min_by_key(|at| self.0.get(*at).map(size));
            match smallest.filter(|at| self.0.get(*at).map(size) < Some(size(&range))) {
                Some(at) => self.0.remove(at),
                None => return,
            };
        }
        let at = self.0.partition_point(|other| other.start < range.start);
        self.0.insert(at, range);
    }

    /// Returns true if every address of `range` is in the set. This is true of an empty range.
    pub fn covers(&self, range: &Range<Hpa>) -> bool {
        range.is_empty() || self.0.iter().any(|other| other.start <= range.start && range.end <= other.end)
    }

    /// Returns true if `address` is in the set.
    pub fn contains(&self, address: Hpa) -> bool {
        self.0.iter().any(|range| range.contains(&address))
    }

    /// Returns true if an address of `range` is in the set.
    pub fn overlaps(&self, range: &Range<Hpa>) -> bool {
        self.0.iter().any(|other| overlaps(other, range))
    }

    /// Returns the number of addresses in the set.
    pub fn bytes(&self) -> u64 {
        self.0.iter().map(|range| range.end.0 - range.start.0).sum()
    }

    /// Returns the lowest multiple of `align`, a power of two, from which on `size` bytes are in the set and inside
    /// `within`; `None` if there is none.
    pub fn lowest_fit(&self, size: u64, align: u64, within: &Range<Hpa>) -> Option<Hpa> {
        self.0.iter().find_map(|range| {
            let start = range.start.max(within.start).align_up(align)?;
            fits(start, size, range.end.min(within.end)).then_some(start)
        })
    }

    /// Returns the highest multiple of `align`, a power of two, from which on `size` bytes are in the set and inside
    /// `within`; `None` if there is none.
    pub fn highest_fit(&self, size: u64, align: u64, within: &Range<Hpa>) -> Option<Hpa> {
        self.0.iter().rev().find_map(|range| {
            let end = range.end.min(within.end);
            let start = Hpa(end.0.checked_sub(size)?).align_down(align);
            (start >= range.start.max(within.start) && fits(start, size, end)).then_some(start)
        })
    }
}

/// Returns true if `size` bytes from `start` on end at or before `end`.
fn fits(start: Hpa, size: u64, end: Hpa) -> bool {
    start.0.checked_add(size).is_some_and(|top| top <= end.0)
}

impl<const N: usize> From<[Range<Hpa>; N]> for RangeSet {
    fn from(ranges: [Range<Hpa>; N]) -> Self {
        let mut set = Self::new();
        ranges.into_iter().for_each(|range| set.insert(range));
        set
    }
}

impl Deref for RangeSet {
    type Target = [Range<Hpa>];
    fn deref(&self) -> &[Range<Hpa>] {
        &self.0
    }
}

impl<'a> IntoIterator for &'a RangeSet {
    type Item = &'a Range<Hpa>;
    type IntoIter = core::slice::Iter<'a, Range<Hpa>>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

impl FromIterator<Range<Hpa>> for RangeSet {
    fn from_iter<I: IntoIterator<Item = Range<Hpa>>>(ranges: I) -> Self {
        let mut set = Self::new();
        for range in ranges {
            set.insert(range);
        }
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(ranges: &[(u64, u64)]) -> RangeSet {
        ranges.iter().map(|&(start, end)| Hpa(start)..Hpa(end)).collect()
    }

    #[test]
    fn touching_ranges_are_joined() {
        assert_eq!(set(&[(4, 6), (0, 2), (2, 4), (9, 9), (8, 7)]), set(&[(0, 6)]));
        assert_eq!(set(&[(0, u64::MAX), (3, 4)]).bytes(), u64::MAX);
    }

    #[test]
    fn removing_splits_ranges() {
        let mut left = set(&[(0, 10), (20, 30)]);
        left.remove(&(Hpa(5)..Hpa(22)));
        left.remove(&(Hpa(25)..Hpa(26)));
        left.remove(&(Hpa(26)..Hpa(26)));
        assert_eq!(left, set(&[(0, 5), (22, 25), (26, 30)]));
        assert!(left.covers(&(Hpa(22)..Hpa(25))) && !left.covers(&(Hpa(22)..Hpa(26))));
    }

    #[test]
    #[cfg_attr(miri, ignore = "500 pieces are sorted 500 times, which takes minutes there")]
    fn set_that_is_full_loses_its_smallest_ranges() {
        let piece = |at: u64| (at * 1000, at * 1000 + 10 + at);
        let pieces: Vec<_> = (0..MAX_RANGES as u64 + 3).rev().map(piece).collect();
        let mut many = set(&pieces);
        assert_eq!(many.len(), MAX_RANGES);
        assert_eq!(many.first(), Some(&(Hpa(3000)..Hpa(3013))));
        many.remove(&(Hpa(50_020)..Hpa(50_021)));
        assert_eq!(many.len(), MAX_RANGES, "a range was split, and the smallest one left out");
        assert!(!many.contains(Hpa(3000)) && many.covers(&(Hpa(50_021)..Hpa(50_060))));
    }

    #[test]
    fn lowest_and_highest_fit_are_found() {
        let space = set(&[(1, 7), (10, 40), (u64::MAX - 2, u64::MAX)]);
        let all = Hpa(0)..Hpa(u64::MAX);
        assert_eq!(space.lowest_fit(4, 2, &all), Some(Hpa(2)));
        assert_eq!(space.lowest_fit(8, 8, &all), Some(Hpa(16)));
        assert_eq!(space.highest_fit(8, 8, &all), Some(Hpa(32)));
        assert_eq!(space.highest_fit(8, 8, &(Hpa(0)..Hpa(39))), Some(Hpa(24)));
        assert_eq!(space.lowest_fit(31, 1, &all), None);
        assert_eq!(space.highest_fit(u64::MAX, 1, &all), None);
    }
}
