//! A global allocator that counts what a thread has allocated.

use std::alloc::{GlobalAlloc, Layout as Allocation, System};
use std::cell::Cell;

/// Counts the allocations of a thread while its [`COUNTED`] is true.
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
// SAFETY: the system's allocator does all the work. A vector that grows has its new place beside the old one, as here
// the default `realloc` does it.
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

/// Runs `steps` and returns the largest number of bytes that they had allocated at one time.
pub fn peak(steps: impl FnOnce()) -> isize {
    USED.set(0);
    PEAK.set(0);
    COUNTED.set(true);
    steps();
    COUNTED.set(false);
    PEAK.get()
}

/// Runs `work` without counting, for the memory of frames, which is no heap.
pub fn uncounted<T>(work: impl FnOnce() -> T) -> T {
    let counted = COUNTED.replace(false);
    let result = work();
    COUNTED.set(counted);
    result
}
