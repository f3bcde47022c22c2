//! The memory that is kept over a warm reset: the log of this start and that of the last one, in turns.

use core::ops::Range;

use super::log::{LOG_BYTES, Log};

/// Size of the memory in bytes: KEPT_SIZE in the linker script.
pub const AREA_BYTES: usize = 2 * LOG_BYTES;
const _: () = assert!(size_of::<Area>() == AREA_BYTES);

/// The memory that is kept. Whatever it holds is a valid value.
#[derive(Debug)]
#[repr(C)]
pub struct Area {
    logs: [Log; 2],
}

/// Returns the logs that a start must [retire](Log::retire) which keeps no log of its own, since the loader has put
/// something into the area: their distances from its start. Otherwise a later start would take one of them for that of
/// the last start. `is_taken` gets the distances of a log's start and end, and returns true if something lies there.
/// That is not touched; it has made the log useless in which it lies.
pub fn outdated(is_taken: impl Fn(Range<u64>) -> bool) -> impl Iterator<Item = u64> {
    let place = |distance| distance..distance + LOG_BYTES as u64;
    [0, LOG_BYTES as u64].into_iter().filter(move |distance| !is_taken(place(*distance)))
}

impl Area {
    /// Begins the log of this start. Returns it, and the log of the last start if that is whole.
    ///
    /// The log of the last start does not outlive this one: after the next reset either this start's log is whole, or
    /// there is none. An older one is never taken for that of the last start.
    ///
    /// `write_back` must write a log from the CPU's caches back to memory. Without it, a reset that empties the caches
    /// before they are written back would leave the logs as they were before this start.
    pub fn open(&mut self, write_back: impl Fn(&Log)) -> (&mut Log, Option<&Log>) {
        let [first, second] = &mut self.logs;
        let start_of = |log: &Log| log.is_whole().then_some(log.start());
        let (last, new, known) = match (start_of(first), start_of(second)) {
            (None, None) => (second, first, None),
            (first_start, second_start) if first_start > second_start => (first, second, first_start),
            (_, second_start) => (second, first, second_start),
        };
        last.retire();
        new.begin(known.unwrap_or(0).wrapping_add(1));
        write_back(last);
        write_back(new);
        (new, known.map(|_| &*last))
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    /// Returns memory that is full of `byte`.
    fn memory(byte: u8) -> Box<Area> {
        let number = u64::from_le_bytes([byte; 8]);
        let log = || Log::filled(number);
        Box::new(Area { logs: [log(), log()] })
    }

    /// Starts on this memory, logs `text`, and returns the number of this start and what the log of the last one said.
    fn start(area: &mut Area, text: &str) -> (u64, Option<String>) {
        let (log, last) = area.open(|_| ());
        log.push(text.as_bytes());
        let said = last.map(|last| {
            let mut bytes = [0; 64];
            let (_, length) = last.read(0, &mut bytes);
            String::from_utf8_lossy(&bytes[..length]).into_owned()
        });
        (log.start(), said)
    }

    #[test]
    fn each_start_finds_the_log_of_the_last_one() {
        for byte in [0, 0xa5, 0xff] {
            let mut area = memory(byte);
            assert_eq!(start(&mut area, "one"), (1, None));
            assert_eq!(start(&mut area, "two"), (2, Some("one".to_owned())));
            assert_eq!(start(&mut area, "three"), (3, Some("two".to_owned())));
            assert_eq!(start(&mut area, "four"), (4, Some("three".to_owned())));
        }
    }

    #[test]
    fn an_older_log_is_not_taken_for_that_of_the_last_start() {
        let mut area = memory(0);
        start(&mut area, "one");
        start(&mut area, "two");
        area.logs.iter_mut().filter(|log| log.is_whole()).for_each(|log| log.damage());
        assert_eq!(start(&mut area, "three"), (1, None));
        assert_eq!(start(&mut area, "four"), (2, Some("three".to_owned())));
    }

    #[test]
    fn a_start_that_keeps_no_log_leaves_none_for_the_next() {
        let outdated = |module: Range<u64>| {
            let is_taken = |log: Range<u64>| log.start < module.end && module.start < log.end;
            outdated(is_taken).collect::<Vec<_>>()
        };
        let module = 0x9000..0xa000;
        assert_eq!(outdated(module.clone()), [0]);
        assert_eq!(outdated(0..1), [LOG_BYTES as u64]);
        assert_eq!(outdated(0x7fff..0x8001), [0; 0]);
        let mut area = memory(0);
        start(&mut area, "one");
        // The module lies in the other log.
        area.logs[1] = Log::filled(0x1234);
        outdated(module).iter().for_each(|distance| area.logs[*distance as usize / LOG_BYTES].retire());
        assert_eq!(start(&mut area, "three"), (1, None));
    }

    #[test]
    fn of_two_logs_the_one_of_the_later_start_counts() {
        for turned in [false, true] {
            let mut area = memory(0);
            let [one, two] = &mut area.logs;
            let (earlier, later) = if turned { (two, one) } else { (one, two) };
            earlier.begin(7);
            earlier.push(b"earlier");
            later.begin(8);
            later.push(b"later");
            assert_eq!(start(&mut area, "now"), (9, Some("later".to_owned())));
        }
    }

    /// A start that logs nothing, on caches that a reset then empties: memory has what was written back alone.
    fn start_and_lose_the_caches(memory: &mut Area) -> Option<u64> {
        let mut caches = Box::new(Area { logs: memory.logs.clone() });
        let first = &raw const caches.logs[0];
        let [one, two] = memory.logs.each_mut().map(RefCell::new);
        let (_, last) = caches.open(|log| {
            let place = if core::ptr::eq(log, first) { &one } else { &two };
            (**place.borrow_mut()).clone_from(log);
        });
        last.map(Log::start)
    }

    #[test]
    fn a_report_is_found_once_even_if_a_reset_empties_the_caches() {
        let mut area = memory(0);
        start(&mut area, "one");
        assert_eq!(start_and_lose_the_caches(&mut area), Some(1));
        assert_eq!(start_and_lose_the_caches(&mut area), Some(2), "the log of start 1 is not found again");
        assert_eq!(start(&mut area, "four"), (4, Some(String::new())));
    }
}
