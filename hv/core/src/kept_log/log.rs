//! The log of one start, with what the next start must know of it.

use super::crc;
use super::ring::{RING_BYTES, Ring};

/// Size of a log in memory.
pub const LOG_BYTES: usize = 32 * 1024;
const _: () = assert!(size_of::<Log>() == LOG_BYTES);

/// What a log begins with, so that no other data is taken for one. The last digit is the version of the format.
const MAGIC: u64 = u64::from_le_bytes(*b"VidarLg1");
/// What [`Log::report`] and [`Log::main`] hold as long as there is no such position.
const NONE: u64 = u64::MAX;

/// The log of one start. It consists of numbers alone, so it may be read from memory that anybody has written to:
/// [`Log::is_whole`] tells if it is one.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
#[repr(C)]
pub struct Log {
    magic: u64,
    /// The number of this start, counted from 1 since the memory was without a log.
    start: u64,
    /// The position of the first report of a crash, or [`NONE`].
    report: u64,
    /// The position of the main part of that report, or [`NONE`].
    main: u64,
    /// The CRC of all these numbers, and of those of the ring.
    check: u32,
    unused: u32,
    ring: Ring,
}

impl Log {
    /// Begins the log of the start with this number.
    pub fn begin(&mut self, start: u64) {
        (self.magic, self.start, self.report, self.main, self.unused) = (MAGIC, start, NONE, NONE, 0);
        self.ring.clear();
        self.seal();
    }

    /// Appends `bytes`. A full log loses its oldest bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.ring.push(bytes);
        self.seal();
    }

    /// Notes that the report of a crash follows. The first report of a start is the one that counts.
    pub fn begin_report(&mut self) {
        if self.report == NONE {
            self.report = self.ring.end();
            self.seal();
        }
    }

    /// Notes that the main part of a report follows. As with reports, the first one counts.
    pub fn begin_main(&mut self) {
        if self.main == NONE {
            self.main = self.ring.end();
            self.seal();
        }
    }

    /// Reads from the log, as [`Ring::read`] does.
    pub fn read(&self, position: u64, buffer: &mut [u8]) -> (u64, usize) {
        self.ring.read(position, buffer)
    }

    /// Returns the position of the first report of a crash, if there is one.
    pub fn report(&self) -> Option<u64> {
        (self.report != NONE).then_some(self.report)
    }

    /// Returns the position of the main part of that report, if it has one.
    pub fn main(&self) -> Option<u64> {
        (self.main != NONE).then_some(self.main)
    }

    /// Returns the positions of all bytes that the log still has.
    pub fn positions(&self) -> core::ops::Range<u64> {
        self.ring.end().saturating_sub(RING_BYTES as u64)..self.ring.end()
    }

    /// Returns the number of this start.
    pub const fn start(&self) -> u64 {
        self.start
    }

    /// Returns true if this is a log, and nobody but [`Log`] has written to it.
    pub fn is_whole(&self) -> bool {
        self.magic == MAGIC && self.check == self.checked() && self.ring.is_whole()
    }

    /// Makes sure that no later start takes this for a log. What it holds can be read all the same.
    pub fn retire(&mut self) {
        self.magic = 0;
    }

    /// Returns memory that is full of `number`, for tests. It is no log.
    #[cfg(test)]
    pub(super) fn filled(number: u64) -> Self {
        let (check, ring) = (number as u32, Ring::filled(number));
        Self { magic: number, start: number, report: number, main: number, check, unused: check, ring }
    }

    /// Writes to the log as anybody may who does not know of the CRC, for tests.
    #[cfg(test)]
    pub(super) fn damage(&mut self) {
        self.ring.damage();
    }

    fn seal(&mut self) {
        self.check = self.checked();
    }

    /// Returns the CRC of the numbers.
    fn checked(&self) -> u32 {
        let Self { magic, start, report, main, ref ring, .. } = *self;
        let numbers = [magic, start, report, main, ring.end(), ring.crc().into()];
        crc::of(numbers.into_iter().flat_map(u64::to_le_bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_says_where_the_first_report_begins() {
        let mut log = Box::new(Log::filled(7));
        assert!(!log.is_whole());
        log.begin(3);
        log.push(b"one\n");
        assert!(log.is_whole());
        assert_eq!((log.start(), log.report(), log.positions()), (3, None, 0..4));
        log.begin_report();
        log.push(b"two\n");
        log.begin_report();
        assert!(log.is_whole());
        assert_eq!((log.report(), log.main(), log.positions()), (Some(4), None, 0..8));
        let mut text = [0; 4];
        assert_eq!(log.read(4, &mut text), (4, 4));
        assert_eq!(&text, b"two\n");
        log.begin_main();
        log.push(b"three\n");
        log.begin_main();
        assert!(log.is_whole());
        log.retire();
        assert!(!log.is_whole());
        assert_eq!((log.report(), log.main()), (Some(4), Some(8)));
    }

    #[test]
    fn a_number_that_has_changed_is_noticed() {
        let mut log = Box::new(Log::filled(0));
        let changes: [fn(&mut Log); 7] = [
            |_| (),
            |log| log.magic ^= 1,
            |log| log.start ^= 1 << 63,
            |log| log.report = 2,
            |log| log.main = 2,
            |log| log.check ^= 1,
            |log| log.ring.push(b"x"),
        ];
        for (index, change) in changes.iter().enumerate() {
            log.begin(1);
            log.push(b"text");
            change(&mut log);
            assert_eq!(log.is_whole(), index == 0, "{index}");
        }
    }
}
