//! Frames: the 4 KiB pieces of Vidar's own memory, which hold page tables, VMX and SVM structures and stacks.

use core::ops::Range;

use super::addr::{Hpa, PAGE_SIZE};
use super::stage2::{Table, TableMemory};

/// The memory that frames lie in. A frame has 512 words of eight bytes.
pub trait FrameMemory {
    /// A range of this memory that nothing else uses.
    type Free: Into<Range<Hpa>>;

    /// Fills the frame at `frame` with zeros.
    fn zero(&mut self, frame: Hpa);
    /// Writes the word at `index` of the frame at `frame`.
    fn write(&mut self, frame: Hpa, index: usize, word: u64);
    /// Returns the word at `index` of the frame at `frame`.
    fn read(&self, frame: Hpa, index: usize) -> u64;
}

/// A pool of free frames: a range of fresh frames, which have never been used, and a list of returned frames, which are
/// linked by their first words.
#[derive(Debug)]
pub struct FramePool<M> {
    memory: M,
    fresh: Range<Hpa>,
    returned: Option<Hpa>,
    free: usize,
}

impl<M: FrameMemory> FramePool<M> {
    /// Returns a pool of the whole pages in `range`.
    pub fn new(memory: M, range: M::Free) -> Self {
        let fresh = whole_pages(range.into());
        let free = ((fresh.end.0 - fresh.start.0) / PAGE_SIZE) as usize;
        Self { memory, fresh, returned: None, free }
    }

    /// Returns a zeroed frame, or `None` if all are in use.
    pub fn allocate(&mut self) -> Option<Hpa> {
        let frame = match self.returned {
            Some(frame) => {
                self.returned = match self.memory.read(frame, 0) {
                    0 => None,
                    next => Some(Hpa(next)),
                };
                frame
            }
            None if self.fresh.is_empty() => return None,
            None => {
                let frame = self.fresh.start;
                self.fresh.start = frame + PAGE_SIZE;
                frame
            }
        };
        self.free -= 1;
        self.memory.zero(frame);
        Some(frame)
    }

    /// Returns the address of `count` zeroed frames that follow each other, or `None` if there are not that many fresh
    /// frames.
    pub fn allocate_run(&mut self, count: usize) -> Option<Hpa> {
        let start = self.fresh.start;
        let end = start + count as u64 * PAGE_SIZE;
        if end > self.fresh.end {
            return None;
        }
        self.fresh.start = end;
        self.free -= count;
        (start.0..end.0).step_by(PAGE_SIZE as usize).for_each(|frame| self.memory.zero(Hpa(frame)));
        Some(start)
    }

    /// Adds the whole pages in `range`. The frames that the pool has already are handed out first.
    pub fn add(&mut self, range: M::Free) {
        let fresh = core::mem::replace(&mut self.fresh, Hpa(0)..Hpa(0));
        self.free -= ((fresh.end.0 - fresh.start.0) / PAGE_SIZE) as usize;
        self.free_all(fresh);
        let more = whole_pages(range.into());
        self.free += ((more.end.0 - more.start.0) / PAGE_SIZE) as usize;
        self.fresh = more;
    }

    /// Adds the whole pages in `range`. They are handed out before the other frames.
    pub fn add_first(&mut self, range: M::Free) {
        self.free_all(whole_pages(range.into()));
    }

    /// Puts the pages of `frames` on the list.
    fn free_all(&mut self, frames: Range<Hpa>) {
        (frames.start.0..frames.end.0).step_by(PAGE_SIZE as usize).for_each(|frame| self.free(Hpa(frame)));
    }

    /// Puts a frame that is not used on the list.
    fn free(&mut self, frame: Hpa) {
        self.memory.write(frame, 0, self.returned.map_or(0, |next| next.0));
        self.returned = Some(frame);
        self.free += 1;
    }

    /// Returns the number of free frames.
    pub fn available(&self) -> usize {
        self.free
    }
}

impl<M: FrameMemory> TableMemory for FramePool<M> {
    fn allocate(&mut self) -> Option<Hpa> {
        Self::allocate(self)
    }

    fn free(&mut self, table: Table) {
        Self::free(self, table.address());
    }

    fn read(&self, table: Table, index: usize) -> u64 {
        self.memory.read(table.address(), index)
    }

    fn write(&mut self, table: Table, index: usize, entry: u64) {
        self.memory.write(table.address(), index, entry);
    }
}

fn whole_pages(range: Range<Hpa>) -> Range<Hpa> {
    let end = range.end.align_down(PAGE_SIZE);
    range.start.align_up(PAGE_SIZE).unwrap_or(end).min(end)..end
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    impl FrameMemory for BTreeMap<u64, u64> {
        type Free = Range<Hpa>;

        fn zero(&mut self, frame: Hpa) {
            self.insert(frame.0, 0);
        }
        fn write(&mut self, frame: Hpa, _: usize, word: u64) {
            self.insert(frame.0, word);
        }
        fn read(&self, frame: Hpa, _: usize) -> u64 {
            self[&frame.0]
        }
    }

    #[test]
    fn added_frames_are_handed_out_last() {
        let mut pool = FramePool::new(BTreeMap::new(), Hpa(0x1000)..Hpa(0x4000));
        let first = pool.allocate().expect("three frames are free");
        pool.add(Hpa(0x10_0800)..Hpa(0x10_3000));
        assert_eq!(pool.available(), 4);
        let rest: Vec<_> = core::iter::from_fn(|| pool.allocate()).collect();
        assert_eq!(rest, [0x3000, 0x2000, 0x10_1000, 0x10_2000].map(Hpa));
        pool.free(first);
        assert_eq!((pool.available(), pool.allocate()), (1, Some(first)));
    }

    #[test]
    fn frames_that_are_added_first_are_handed_out_first_and_leave_the_others_together() {
        let mut pool = FramePool::new(BTreeMap::new(), Hpa(0x4000)..Hpa(0x7000));
        pool.add_first(Hpa(0x1000)..Hpa(0x3000));
        assert_eq!(pool.available(), 5);
        assert_eq!([pool.allocate(), pool.allocate()], [0x2000, 0x1000].map(|frame| Some(Hpa(frame))));
        assert_eq!(pool.allocate_run(3), Some(Hpa(0x4000)));
    }

    proptest! {
        #[test]
        #[cfg_attr(miri, ignore = "hundreds of pages are cleared, which takes minutes there")]
        fn no_frame_is_handed_out_twice(steps in proptest::collection::vec(any::<Option<u8>>(), 0..200)) {
            let mut pool = FramePool::new(BTreeMap::new(), Hpa(0x1800)..Hpa(0x1_0fff));
            let mut held = Vec::new();
            let mut seen = BTreeSet::new();
            for step in steps {
                match step {
                    Some(index) if !held.is_empty() => {
                        let frame: Hpa = held.swap_remove(usize::from(index) % held.len());
                        seen.remove(&frame);
                        pool.free(frame);
                    }
                    _ => match pool.allocate() {
                        Some(frame) => {
                            prop_assert!(frame.is_aligned(PAGE_SIZE));
                            prop_assert!((0x2000..0x1_0000).contains(&frame.0));
                            prop_assert!(seen.insert(frame));
                            held.push(frame);
                        }
                        None => prop_assert_eq!(held.len(), 14),
                    },
                }
                prop_assert_eq!(pool.available(), 14 - held.len());
            }
        }
    }
}
