//! The one writer of a ring. It runs at each exit, so it counts instructions: each part of a record is one store, the
//! slots are gone through by an iterator, each record is counted in its slot, and an exit that is left out costs the
//! others nothing.

use core::slice;
use core::sync::atomic::{Ordering, fence};

use vidar_abi::{ExitKind, Record};

use super::ring::{DETAIL, KIND, Ring, Slot};

/// Writes the records of one CPU.
#[derive(Debug)]
pub struct Writer {
    ring: &'static Ring,
    /// The slots after that of the record that is being written, up to the last.
    rest: slice::Iter<'static, Slot>,
    /// The slot of the record that is being written.
    slot: &'static Slot,
}

/// Takes what is written of an exit that is left out. Nobody reads it.
static NOWHERE: Slot = Slot::empty();

impl Writer {
    /// Returns a writer that goes on where the one before it on the same CPU has stopped. A ring has one writer at a
    /// time. The time up to the first entry is no exit's, so it is left out.
    pub fn new(ring: &'static Ring) -> Self {
        Self { ring, rest: [].iter(), slot: &NOWHERE }
    }

    /// Begins the record of an exit. `tsc` is the low and the high half of the time-stamp counter. Who reads a part of
    /// the record sees that the one before is complete, and so that the slot's old record is gone.
    #[inline(always)] // at each exit
    pub fn begin(&mut self, [low, high]: [u32; 2], rip: u64) {
        let slot = match self.rest.next() {
            Some(slot) => slot,
            None => self.look_for_slot(),
        };
        self.slot = slot;
        fence(Ordering::Release);
        slot.tsc[0].store(low, Ordering::Relaxed);
        slot.tsc[1].store(high, Ordering::Relaxed);
        slot.rip.store(rip, Ordering::Relaxed);
    }

    /// Returns the slot of the record that is written next, after the last one of the ring or after an exit that was
    /// left out.
    #[cold]
    #[inline(never)] // `begin` is short
    fn look_for_slot(&mut self) -> &'static Slot {
        let Ring { laps, slots } = self.ring;
        let next = self.ring.written();
        // Before the first record of a lap is complete, so that whoever sees it sees the lap as well.
        laps.store((next - 1) / slots.len() as u64, Ordering::Release);
        let at = self.ring.index(next);
        self.rest = slots[at + 1..].iter();
        &slots[at]
    }

    /// Adds what exited to the record that has been begun. `detail` is as [`Record::detail`].
    #[inline(always)] // as `begin`
    pub fn exited(&self, kind: ExitKind, detail: u64) {
        self.slot.what.store((kind as u64) << KIND | detail & DETAIL, Ordering::Relaxed);
    }

    /// Leaves the exit whose record has been begun out of the trace: the next record takes its place.
    pub fn leave_out(&mut self) {
        // Without slots to come, the next record looks for its slot.
        (self.rest, self.slot) = ([].iter(), &NOWHERE);
    }

    /// Ends the record that has been begun. `tsc` is the low half of the time-stamp counter.
    #[inline(always)] // at each entry
    pub fn end(&mut self, tsc: u32) {
        self.slot.entry.store(tsc, Ordering::Relaxed);
        // There is a single writer, so a load and a store suffice, without a locked instruction.
        let completed = &self.slot.completed;
        completed.store(completed.load(Ordering::Relaxed).wrapping_add(1), Ordering::Release);
    }

    /// Begins this record, whose duration is not known yet.
    pub fn begin_record(&mut self, record: &Record) {
        let tsc = [record.tsc as u32, (record.tsc >> 32) as u32];
        self.begin(tsc, record.rip);
        self.exited(record.kind, record.detail);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::ring::tests::{SLOTS, leaked};

    #[test]
    fn an_exit_that_is_left_out_leaves_no_trace_wherever_the_writer_is() {
        let ring = leaked();
        let record = |number: u64| Record { tsc: number, rip: 1, ticks: 5, kind: ExitKind::Init, detail: 0 };
        let mut writer = Writer::new(ring);
        writer.end(7);
        for round in 1..2 * SLOTS as u64 {
            for _ in 0..round % 3 {
                writer.begin_record(&record(u64::MAX));
                writer.leave_out();
                assert_eq!(ring.written(), round, "the exits before can be read while this one is answered");
                writer.end(7);
            }
            assert_eq!(ring.written(), round);
            writer.begin_record(&record(round));
            writer.end(round as u32 + 5);
        }
        let mut last = Vec::new();
        ring.last(SLOTS, &mut |found| last.push(found));
        assert_eq!(last, (SLOTS as u64 + 1..2 * SLOTS as u64).map(record).collect::<Vec<_>>());
    }

    #[test]
    fn a_new_writer_goes_on_where_the_last_one_has_stopped() {
        let ring = leaked();
        let record = |number: u64| Record { tsc: number, rip: 1, ticks: 5, kind: ExitKind::Init, detail: 0 };
        for round in 1..3 * SLOTS as u64 {
            let mut writer = Writer::new(ring);
            assert_eq!(ring.written(), round, "what the last writer has begun is not complete");
            writer.end(7);
            assert_eq!(ring.written(), round, "a CPU that starts anew has had no exit");
            writer.begin_record(&record(round));
            writer.end(round as u32 + 5);
            writer.begin_record(&record(u64::MAX));
        }
        let mut last = Vec::new();
        ring.last(2, &mut |found| last.push(found));
        assert_eq!(last, [3 * SLOTS as u64 - 2, 3 * SLOTS as u64 - 1].map(record));
    }
}
