//! The one writer of a ring. It runs at each exit, so it counts instructions: each part of a record is one store, and
//! the slots are gone through by an iterator.

use core::slice;
use core::sync::atomic::{Ordering, fence};

use vidar_abi::{ExitKind, Record};

use super::ring::{Ring, Slot};

/// Writes the records of one CPU.
#[derive(Debug)]
pub struct Writer {
    ring: &'static Ring,
    /// The slot of the record that is being written.
    slot: &'static Slot,
    /// The slots after that one, up to the last.
    rest: slice::Iter<'static, Slot>,
    /// True if the record that is being written is to be left out.
    left_out: bool,
}

/// Takes what is written of an exit that is left out. Nobody reads it.
static NOWHERE: Slot = Slot::empty();

impl Writer {
    /// Returns a writer that goes on where the one before it on the same CPU has stopped. A ring has one writer at a
    /// time. The time up to the first entry is no exit's, so it is left out.
    pub fn new(ring: &'static Ring) -> Self {
        let mut writer = Self { ring, slot: &NOWHERE, rest: [].iter(), left_out: false };
        writer.leave_out();
        writer
    }

    /// Begins the record of an exit. `tsc` is the low and the high half of the time-stamp counter. Who reads a part of it sees that the record before is complete,
    /// and so that the slot's old record is gone.
    #[inline]
    pub fn begin_at(&self, [low, high]: [u32; 2], rip: u64, kind: ExitKind) {
        fence(Ordering::Release);
        self.slot.tsc[0].store(low, Ordering::Relaxed);
        self.slot.tsc[1].store(high, Ordering::Relaxed);
        self.slot.rip.store(rip, Ordering::Relaxed);
        self.slot.kind.store(kind as u32, Ordering::Relaxed);
    }

    /// Adds what exited, as [`Record::detail`].
    #[inline]
    pub fn detail(&self, detail: u64) {
        self.slot.detail.store(detail, Ordering::Relaxed);
    }

    /// Begins this record, whose duration is not known yet.
    pub fn begin(&self, record: &Record) {
        self.begin_at([record.tsc as u32, (record.tsc >> 32) as u32], record.rip, record.kind);
        self.detail(record.detail);
    }

    /// Leaves the exit whose record has been begun out of the trace: the next record takes its place.
    #[inline]
    pub fn leave_out(&mut self) {
        // Without slots to come, `end` takes the way that is seldom taken, where it looks for this.
        (self.slot, self.rest, self.left_out) = (&NOWHERE, [].iter(), true);
    }

    /// Ends the record that has been begun. `tsc` is the low half of the time-stamp counter.
    #[inline]
    pub fn end(&mut self, tsc: u32) {
        let ticks = tsc.wrapping_sub(self.slot.tsc[0].load(Ordering::Relaxed));
        self.slot.ticks.store(ticks, Ordering::Relaxed);
        // There is a single writer, so a load and a store suffice, without a locked instruction.
        let next = self.ring.next.load(Ordering::Relaxed).wrapping_add(1);
        self.slot = match self.rest.next() {
            Some(slot) => slot,
            None => {
                let next = if self.left_out { next - 1 } else { next };
                let slot;
                (slot, self.rest) = from(self.ring, next);
                self.ring.next.store(next, Ordering::Release);
                self.left_out = false;
                self.slot = slot;
                return;
            }
        };
        self.ring.next.store(next, Ordering::Release);
    }
}

/// Returns the slot of the record at `next`, and those after it up to the last.
#[cold]
fn from(ring: &'static Ring, next: u64) -> (&'static Slot, slice::Iter<'static, Slot>) {
    let at = ring.index(next);
    (&ring.slots[at], ring.slots[at + 1..].iter())
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
                writer.begin(&record(u64::MAX));
                writer.leave_out();
                assert_eq!(ring.written(), round, "the exits before can be read while this one is answered");
                writer.end(7);
            }
            assert_eq!(ring.written(), round);
            writer.begin(&record(round));
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
            writer.begin(&record(round));
            writer.end(round as u32 + 5);
            writer.begin(&record(u64::MAX));
        }
        let mut last = Vec::new();
        ring.last(2, &mut |found| last.push(found));
        assert_eq!(last, [3 * SLOTS as u64 - 2, 3 * SLOTS as u64 - 1].map(record));
    }
}
