//! The time-stamp counter as a clock.

use std::thread::sleep;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use crate::hypercall::tsc;

/// For how long the counter is compared with Linux' clock.
const COMPARED: Duration = Duration::from_millis(100);

/// How fast the time-stamp counter ticks.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Clock {
    ticks_per_microsecond: f64,
}

impl Clock {
    /// Returns the clock of a counter with this speed.
    pub fn new(ticks_per_microsecond: f64) -> Self {
        Self { ticks_per_microsecond }
    }

    /// Compares the counter with Linux' raw clock for a moment. Both run on while a CPU sleeps, and nobody sets either.
    pub fn measure() -> Self {
        let (ticks, nanoseconds) = now();
        sleep(COMPARED);
        let (later_ticks, later) = now();
        Self::between(later_ticks.saturating_sub(ticks), later.saturating_sub(nanoseconds))
    }

    /// Returns the clock of a counter that ticks so often in this time.
    fn between(ticks: u64, nanoseconds: u64) -> Self {
        Self::new((ticks.max(1) as f64 / nanoseconds.max(1) as f64) * 1e3)
    }

    /// Returns how often the counter ticks in a microsecond.
    pub fn ticks_per_microsecond(self) -> f64 {
        self.ticks_per_microsecond
    }

    /// Returns the microseconds that so many ticks take.
    pub fn microseconds(self, ticks: u64) -> f64 {
        ticks as f64 / self.ticks_per_microsecond
    }
}

/// Returns the counter, and Linux' raw clock in nanoseconds.
fn now() -> (u64, u64) {
    let time = clock_gettime(ClockId::MonotonicRaw);
    (tsc(), time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_become_microseconds() {
        let clock = Clock::between(250_000_000, 100_000_000);
        assert_eq!(clock, Clock::new(2500.0));
        assert_eq!(clock.microseconds(5000), 2.0);
        assert!(Clock::between(0, 0).microseconds(1).is_finite());
    }
}
