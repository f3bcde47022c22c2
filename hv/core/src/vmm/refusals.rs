//! What the guard has refused: counts for each protection, and the places that are in the log already.

use core::array::from_fn;
use core::sync::atomic::{AtomicU64, Ordering};

use vidar_abi::Protection;

/// The number of places that are reported in the log, each once.
const PLACES: usize = 16;

/// What the guard has refused so far.
#[derive(Debug)]
pub struct Refusals {
    /// For each protection, how often it was attacked.
    counts: [AtomicU64; Protection::COUNT],
    /// For each protection, the RIP of the last attack.
    last: [AtomicU64; Protection::COUNT],
    /// The RIPs that are in the log, each plus 1, and 0 where there is room.
    reported: [AtomicU64; PLACES],
}

impl Default for Refusals {
    fn default() -> Self {
        let zero = |_| AtomicU64::new(0);
        Self { counts: from_fn(zero), last: from_fn(zero), reported: from_fn(zero) }
    }
}

/// How a refusal is reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Report {
    /// It is the first at its RIP.
    First,
    /// It is the first at its RIP, and the last that is reported.
    Last,
    /// It is in the log already, or there have been too many.
    Counted,
}

impl Refusals {
    /// Counts an attack at `rip`, and returns how it is reported.
    pub fn count(&self, protection: Protection, rip: u64) -> Report {
        self.counts[protection as usize].fetch_add(1, Ordering::Relaxed);
        self.last[protection as usize].store(rip, Ordering::Relaxed);
        let marked = rip.wrapping_add(1).max(1); // 0 marks a place that is free
        for (index, place) in self.reported.iter().enumerate() {
            match place.compare_exchange(0, marked, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) if index + 1 == PLACES => return Report::Last,
                Ok(_) => return Report::First,
                Err(other) if other == marked => return Report::Counted,
                Err(_) => {}
            }
        }
        Report::Counted
    }

    /// Returns how often `protection` was attacked, and the RIP of the last attack.
    pub fn get(&self, protection: Protection) -> (u64, u64) {
        let [count, last] =
            [&self.counts, &self.last].map(|list| list[protection as usize].load(Ordering::Relaxed));
        (count, last)
    }

    /// Returns a protection whose last attack was at `rip`, if there is one.
    #[cold]
    pub fn last_at(&self, rip: u64) -> Option<Protection> {
        let was_there = |protection: &&Protection| {
            let (count, last) = self.get(**protection);
            count > 0 && last == rip
        };
        Protection::ALL.iter().find(was_there).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_address_is_a_place_as_well() {
        let refusals = Refusals::default();
        assert_eq!(refusals.count(Protection::Data, u64::MAX), Report::First);
        assert_eq!(refusals.count(Protection::Data, u64::MAX), Report::Counted);
    }

    #[test]
    fn each_place_is_reported_once() {
        let refusals = Refusals::default();
        for rip in 0..PLACES as u64 {
            let expected = if rip + 1 == PLACES as u64 { Report::Last } else { Report::First };
            assert_eq!(refusals.count(Protection::Cr0Wp, rip), expected);
            assert_eq!(refusals.count(Protection::Lstar, rip), Report::Counted);
        }
        assert_eq!(refusals.count(Protection::Lstar, 100), Report::Counted);
        let places = PLACES as u64;
        assert_eq!(refusals.get(Protection::Cr0Wp), (places, places - 1));
        assert_eq!(refusals.get(Protection::Lstar), (places + 1, 100));
        assert_eq!(refusals.get(Protection::Star), (0, 0));
    }

    #[test]
    fn the_place_of_a_last_attack_is_found() {
        let refusals = Refusals::default();
        assert_eq!(refusals.last_at(0), None, "nothing was attacked");
        refusals.count(Protection::Cr4Smep, 7);
        assert_eq!((refusals.last_at(7), refusals.last_at(0)), (Some(Protection::Cr4Smep), None));
        refusals.count(Protection::Cr4Smep, 8);
        assert_eq!((refusals.last_at(7), refusals.last_at(8)), (None, Some(Protection::Cr4Smep)));
    }
}
