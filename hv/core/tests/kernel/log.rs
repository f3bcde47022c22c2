//! The last lines of the kernel's log.

use proptest::prelude::*;
use vidar_core::kernel::Kernel;

use crate::kernel;
use crate::kernel_image::log::Log;
use crate::kernel_image::memory::Memory;
use crate::kernel_image::{ERAS, Era};

fn lines(memory: &Memory, kernel: &Kernel, count: usize) -> Vec<String> {
    let mut lines = Vec::new();
    kernel.log(memory, count, &mut |line| lines.push(String::from_utf8(line.to_vec()).unwrap()));
    lines
}

/// Returns a guest of this era with an empty log.
fn empty(era: &Era) -> (Memory, Kernel, Log) {
    let (mut memory, kernel) = kernel(era);
    let log = Log::new(&mut memory, era, 4, 9);
    (memory, kernel, log)
}

/// Returns the last lines as the kernel prints them.
fn expected(log: &Log, count: usize) -> Vec<String> {
    let all = log.records.iter().flat_map(|(_, _, text, time)| {
        let time = format!("[{:5}.{:06}] ", time / 1_000_000_000, time / 1000 % 1_000_000);
        let text = String::from_utf8(text.clone()).unwrap();
        text.split('\n').map(|line| format!("{time}{line}")).collect::<Vec<_>>()
    });
    let all: Vec<_> = all.collect();
    all[all.len().saturating_sub(count)..].to_vec()
}

#[test]
fn last_lines_have_their_times() {
    for era in &ERAS {
        let (memory, kernel) = kernel(era);
        let all = ["[    0.000000] Linux version", "[    1.234567] two", "[    1.234567] lines"];
        assert_eq!(lines(&memory, &kernel, 10), all, "{}", era.release);
        assert_eq!(lines(&memory, &kernel, 2), all[1..], "{}", era.release);
        assert_eq!(lines(&memory, &kernel, 1), all[2..], "part of a record, {}", era.release);
        assert_eq!(lines(&memory, &kernel, 0), [""; 0], "{}", era.release);
    }
}

#[test]
fn an_empty_log_has_no_lines() {
    for era in &ERAS {
        let (memory, kernel, _) = empty(era);
        assert_eq!(lines(&memory, &kernel, 10), [""; 0], "{}", era.release);
    }
}

#[test]
fn records_that_are_not_whole_are_left_out() {
    const STATE: u32 = 62;
    for era in &ERAS {
        let (mut memory, kernel, mut log) = empty(era);
        for text in ["first", "second", "third"] {
            log.push(&mut memory, text.as_bytes(), 0);
        }
        let newest = log.head;
        let second = log.descriptor(newest - 1);
        let rest = ["[    0.000000] first", "[    0.000000] third"];
        let all = ["[    0.000000] first", "[    0.000000] second", "[    0.000000] third"];
        // Reserved, committed, finalized, reusable.
        for (state, expected) in [(0, &rest[..]), (1, &all[..]), (2, &all[..]), (3, &rest[..])] {
            memory.set(second, state << STATE | (newest - 1));
            assert_eq!(lines(&memory, &kernel, 10), expected, "state {state}, {}", era.release);
        }
        // The descriptor has been taken for a later record.
        memory.set(second, 2 << STATE | (newest + 15));
        assert_eq!(lines(&memory, &kernel, 10), rest, "{}", era.release);
        memory.set(second, 2 << STATE | (newest - 1));
        // The text has none: positions that say so, and positions of another record's block.
        for (begin, next) in [(1, 1), (1, 3), (3, 1), (0, 16), (u64::MAX - 7, 8), (16, 0), (0, 0)] {
            memory.set(second + 8, begin);
            memory.set(second + 16, next);
            assert_eq!(lines(&memory, &kernel, 10), rest, "{begin:x} {next:x}, {}", era.release);
        }
        // It has the text of an empty line.
        memory.set(second + 8, 3);
        memory.set(second + 16, 3);
        let empty = ["[    0.000000] first", "[    0.000000] ", "[    0.000000] third"];
        assert_eq!(lines(&memory, &kernel, 10), empty, "{}", era.release);
    }
}

#[test]
fn a_line_that_is_too_long_is_cut() {
    for era in &ERAS {
        let (mut memory, kernel, mut log) = empty(era);
        log.push(&mut memory, &[b'x'; 248], 0);
        let all = lines(&memory, &kernel, 1);
        assert_eq!((all.len(), all[0].len()), (1, 256), "{}", era.release);
    }
}

#[test]
fn without_one_of_the_offsets_there_is_no_log() {
    let mut memory = crate::kernel_image::build(&ERAS[1]);
    let key = b"OFFSET(prb_desc_ring.infos)";
    let at = memory.bytes.windows(key.len()).position(|part| part == key).unwrap();
    memory.bytes[at] = b'X';
    let kernel = Kernel::find(&memory, &memory.ram()).unwrap();
    assert_eq!(lines(&memory, &kernel, 10), [""; 0]);
}

proptest! {
    /// Whatever has been written, the last lines are those of the records that the writer has not overwritten.
    #[test]
    fn lines_are_those_that_were_written_last(
        records in prop::collection::vec((prop_oneof![0usize..40, 100usize..240], 5usize..60, any::<u32>()), 1..60),
        count in 0usize..40,
        era in prop::sample::select(&ERAS[..]),
    ) {
        let (mut memory, kernel, mut log) = empty(&era);
        for (number, (length, line, time)) in records.iter().enumerate() {
            let letter = |at: usize| if at % line == line - 1 { b'\n' } else { b'a' + (number % 26) as u8 };
            let text: Vec<_> = (0..*length).map(letter).collect();
            log.push(&mut memory, &text, u64::from(*time) * 1000);
        }
        prop_assert_eq!(lines(&memory, &kernel, count), expected(&log, count));
    }
}
