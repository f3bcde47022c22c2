//! The ring of records of one CPU. The CPU alone writes, without a lock; any CPU may read at the same time.
//!
//! Records have positions, which count up from 1. The writer goes through the slots from the first to the last, again
//! and again, and each slot counts the records that have been completed in it. From these counts a reader finds the
//! writer's place: the slots before it count one record more than those after it. A reader copies a record and then
//! looks again where the writer is. If the slot may have been overwritten meanwhile, the copy is worth nothing, and the
//! reader goes on at the oldest record that is still there.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

use vidar_abi::Record;

/// How often a reader starts again that the writer has overtaken.
const ATTEMPTS: u32 = 8;

/// The first bit of the kind in what a slot says of an exit. The detail below it may be a physical address, which has
/// 52 bits.
pub(super) const KIND: u32 = 56;
/// The bits of the detail.
pub(super) const DETAIL: u64 = (1 << KIND) - 1;

/// The place of one record. Its fields are what the writer has at hand, in parts that it can store at once: a reader
/// makes the words of a [`Record`] of them. A slot whose bytes are all 0 is a valid one.
#[derive(Debug)]
#[repr(C)]
pub struct Slot {
    /// The low and the high half of the time-stamp counter at the exit.
    pub(super) tsc: [AtomicU32; 2],
    pub(super) rip: AtomicU64,
    /// The low half of the counter at the entry after the exit.
    pub(super) entry: AtomicU32,
    /// How many records have been completed in this place: the low half of that number.
    pub(super) completed: AtomicU32,
    /// What exited: the [`Record::detail`], and from bit [`KIND`] on the [`ExitKind`](vidar_abi::ExitKind).
    pub(super) what: AtomicU64,
}

impl Slot {
    /// Returns a slot without a record.
    pub const fn empty() -> Self {
        Self {
            tsc: [const { AtomicU32::new(0) }; 2],
            rip: AtomicU64::new(0),
            entry: AtomicU32::new(0),
            completed: AtomicU32::new(0),
            what: AtomicU64::new(0),
        }
    }

    /// Returns the words of the record.
    fn words(&self) -> [u64; Record::WORDS] {
        let [low, high] = self.tsc.each_ref().map(|half| half.load(Ordering::Relaxed));
        let ticks = self.entry.load(Ordering::Relaxed).wrapping_sub(low);
        let what = self.what.load(Ordering::Relaxed);
        let both = |low: u32, high: u32| u64::from(high) << 32 | u64::from(low);
        [both(low, high), self.rip.load(Ordering::Relaxed), both(ticks, (what >> KIND) as u32), what & DETAIL]
    }
}

/// The ring of one CPU. Of its slots one is always being written.
#[derive(Debug)]
pub struct Ring {
    /// How often the writer has gone through all slots.
    pub(super) laps: AtomicU64,
    pub(super) slots: &'static [Slot],
}

impl Ring {
    /// Returns an empty ring with these slots. Their number is a power of two, so that a position needs no division.
    pub const fn new(slots: &'static [Slot]) -> Self {
        assert!(slots.len().is_power_of_two(), "the number of slots is not a power of two");
        Self { laps: AtomicU64::new(0), slots }
    }

    /// Returns the index of the slot of the record at `position`.
    pub(super) fn index(&self, position: u64) -> usize {
        (position - 1) as usize & (self.slots.len() - 1)
    }

    /// Returns the position of the oldest record that is there while the record at `end` is being written.
    fn oldest(&self, end: u64) -> u64 {
        end.saturating_sub(self.slots.len() as u64 - 1).max(1)
    }

    /// Returns the position of the record that is written next.
    pub fn written(&self) -> u64 {
        let laps = self.laps.load(Ordering::Acquire);
        // The number of records that a slot has in this lap is 0 or 1, and more if the writer is in a later one by now.
        let in_this_lap =
            |slot: &Slot| slot.completed.load(Ordering::Acquire).wrapping_sub(laps as u32) as i32;
        let complete = self.slots.partition_point(|slot| in_this_lap(slot) > 0);
        laps * self.slots.len() as u64 + complete as u64 + 1
    }

    /// Copies records from `position` on, or from the oldest record on if that has been overwritten. Returns the
    /// position of the first one copied, and their number, which is 0 at the end.
    pub fn read(&self, position: u64, records: &mut [[u64; Record::WORDS]]) -> (u64, usize) {
        let mut end = self.written();
        for _ in 0..ATTEMPTS {
            let start = position.max(self.oldest(end)).min(end);
            let count = (records.len() as u64).min(end - start) as usize;
            for (record, position) in records[..count].iter_mut().zip(start..) {
                *record = self.slots[self.index(position)].words();
            }
            // Pairs with the fence of the writer: if a word of a newer record has been copied, its position is seen
            // here.
            fence(Ordering::Acquire);
            end = self.written();
            if self.oldest(end) <= start {
                return (start, count);
            }
        }
        (end, 0)
    }

    /// Calls `found` with the last records, at most `count` of them, the newest last. The exit that the CPU is handling
    /// is not among them.
    pub fn last(&self, count: usize, found: &mut dyn FnMut(Record)) {
        let mut position = self.written().saturating_sub(count as u64);
        // The writer may go on, so the number of steps is bounded here.
        for _ in 0..count {
            let mut words = [[0; Record::WORDS]];
            let (at, 1) = self.read(position, &mut words) else { return };
            Record::from_words(words[0]).into_iter().for_each(&mut *found);
            position = at + 1;
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::atomic::AtomicBool;
    use std::thread;

    use proptest::prelude::*;
    use vidar_abi::ExitKind;

    use super::*;
    use crate::trace::writer::Writer;

    /// The number of slots of the rings of tests.
    pub const SLOTS: usize = 512;

    /// Returns an empty ring that is never freed.
    pub fn leaked() -> &'static Ring {
        Box::leak(Box::new(Ring::new(Box::leak(Box::new([const { Slot::empty() }; SLOTS])))))
    }

    /// Returns a ring and its writer, after the guest has been entered first.
    fn ring() -> (&'static Ring, Writer) {
        let ring = leaked();
        let mut writer = Writer::new(ring);
        writer.end(7);
        (ring, writer)
    }

    /// Writes a record whose words all follow from its position.
    fn write(writer: &mut Writer, position: u64) {
        let record = expected(position);
        writer.begin_record(&record);
        writer.end(record.tsc as u32 + record.ticks);
    }

    fn expected(position: u64) -> Record {
        let kind = ExitKind::ALL[position as usize % ExitKind::COUNT];
        Record {
            tsc: position * 1000,
            rip: !position,
            ticks: position as u32 % 7,
            kind,
            detail: position << 20,
        }
    }

    /// Reads from `position` to the end, `chunk` records at a time.
    fn read(ring: &Ring, mut position: u64, chunk: usize) -> Vec<(u64, Record)> {
        let mut all = Vec::new();
        loop {
            let mut words = vec![[0; Record::WORDS]; chunk];
            let (start, count) = ring.read(position, &mut words);
            if count == 0 {
                return all;
            }
            let records = words[..count].iter().map(|words| Record::from_words(*words).expect("a record"));
            all.extend((start..).zip(records));
            position = start + count as u64;
        }
    }

    proptest! {
        #[test]
        #[cfg_attr(miri, ignore = "thousands of records take minutes there")]
        fn the_newest_records_are_read_in_their_order(written in 1_u64..1500, from in 0_u64..1600, chunk in 1_usize..5) {
            let (ring, mut writer) = ring();
            (1..written).for_each(|position| write(&mut writer, position));
            let first = from.max(written.saturating_sub(SLOTS as u64 - 1)).max(1);
            let wanted: Vec<_> = (first..written).map(|position| (position, expected(position))).collect();
            prop_assert_eq!(read(ring, from, chunk), wanted);
        }
    }

    #[test]
    fn the_last_records_end_with_the_newest() {
        let (ring, mut writer) = ring();
        let last = |count| {
            let mut found = Vec::new();
            ring.last(count, &mut |record| found.push(record));
            found
        };
        assert_eq!(last(8), []);
        (1..4).for_each(|position| write(&mut writer, position));
        assert_eq!(last(8), [1, 2, 3].map(expected));
        assert_eq!(last(2), [2, 3].map(expected));
        (4..1000).for_each(|position| write(&mut writer, position));
        assert_eq!(last(2), [998, 999].map(expected));
        assert_eq!(last(usize::MAX).len(), SLOTS - 1);
    }

    #[test]
    fn a_record_that_is_being_written_is_not_read_nor_is_the_one_in_its_slot() {
        let (ring, mut writer) = ring();
        (1..=SLOTS as u64).for_each(|position| write(&mut writer, position));
        writer.begin_record(&expected(7));
        let read = read(ring, 0, 2);
        assert_eq!(read.first().map(|(position, _)| *position), Some(2));
        assert_eq!(read.last().map(|(position, _)| *position), Some(SLOTS as u64));
    }

    #[test]
    fn positions_go_on_after_more_laps_than_a_slot_counts() {
        const LAPS: u64 = (1 << 32) - 1;
        let (ring, mut writer) = ring();
        ring.laps.store(LAPS, Ordering::Relaxed);
        ring.slots.iter().for_each(|slot| slot.completed.store(LAPS as u32, Ordering::Relaxed));
        let before = LAPS * SLOTS as u64;
        for written in 1..3 * SLOTS as u64 {
            assert_eq!(ring.written(), before + written);
            write(&mut writer, written);
        }
        let read = read(ring, 0, 2);
        let wanted =
            (2 * SLOTS as u64 + 1..3 * SLOTS as u64).map(|written| (before + written, expected(written)));
        assert_eq!(read, wanted.collect::<Vec<_>>());
    }

    #[test]
    fn a_duration_across_a_carry_of_the_counter_is_right() {
        let (ring, mut writer) = ring();
        let record = Record { tsc: (3 << 32) - 5, rip: 6, ticks: 9, kind: ExitKind::Init, detail: 7 };
        writer.begin_record(&record);
        writer.end(4);
        assert_eq!(read(ring, 0, 1), [(1, record)]);
    }

    #[test]
    #[cfg_attr(miri, ignore = "a race takes minutes there")]
    fn a_reader_that_races_the_writer_sees_whole_records_alone() {
        const WRITTEN: u64 = 2_000_000;
        let (ring, mut writer) = ring();
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            for chunk in [1, 2] {
                let done = &done;
                scope.spawn(move || {
                    let (mut position, mut seen) = (0, 0);
                    loop {
                        let last = done.load(Ordering::Acquire);
                        let mut words = [[0; Record::WORDS]; 2];
                        let (start, count) = ring.read(position, &mut words[..chunk]);
                        assert!(start >= position, "the reader goes back from {position} to {start}");
                        for (words, at) in words[..count].iter().zip(start..) {
                            assert_eq!(Record::from_words(*words), Some(expected(at)), "record {at}");
                        }
                        seen += count;
                        position = start + count as u64;
                        if last && count == 0 {
                            break;
                        }
                    }
                    assert_eq!(position, WRITTEN);
                    assert!(seen > 0);
                });
            }
            (1..WRITTEN).for_each(|position| write(&mut writer, position));
            done.store(true, Ordering::Release);
        });
    }
}
