//! An allocator that counts what a thread has in use.

use std::alloc::{GlobalAlloc, Layout as Allocation, System};
use std::cell::Cell;

/// Counts what this thread allocates while [`COUNTED`] says so.
struct Counting;

thread_local! {
    static COUNTED: Cell<bool> = const { Cell::new(false) };
    static USED: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

fn count(bytes: isize) {
    if COUNTED.get() {
        USED.set(USED.get() + bytes);
        PEAK.set(PEAK.get().max(USED.get()));
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

#[expect(unsafe_code, reason = "a global allocator is an unsafe trait")]
// SAFETY: the system's allocator does all the work. A vector that grows has its new place beside the old one, as here the
// default `realloc` does it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Allocation) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Allocation) {
        count(-(layout.size() as isize));
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// Runs `steps` and returns what they had in use at most.
pub fn peak(steps: impl FnOnce()) -> isize {
    USED.set(0);
    PEAK.set(0);
    COUNTED.set(true);
    steps();
    COUNTED.set(false);
    PEAK.get()
}

/// Frames are no heap.
pub fn uncounted<T>(work: impl FnOnce() -> T) -> T {
    let counted = COUNTED.replace(false);
    let result = work();
    COUNTED.set(counted);
    result
}
