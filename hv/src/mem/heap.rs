//! The heap: for the boot order and for what lives as long as Vidar. The exit path allocates nothing.

#![expect(unsafe_code, reason = "a global allocator is an unsafe trait")]

use core::alloc::{GlobalAlloc, Layout};
use core::ptr::{self, NonNull};

use linked_list_allocator::Heap;
use spin::Mutex;

/// Bytes of heap. The largest of what is in it are the memory maps: a UEFI machine may have hundreds of entries, in several
/// copies.
const HEAP_BYTES: usize = 160 * 1024;

#[repr(C, align(16))]
struct Arena([u8; HEAP_BYTES]);

static HEAP: Mutex<Heap> = Mutex::new(Heap::empty());

/// The allocator that the image installs. Interrupts are off wherever Vidar runs, and the NMI handler allocates
/// nothing, so the lock cannot be taken twice by one CPU.
pub struct GlobalHeap;

/// Gives the heap its memory; before the first allocation.
pub fn init() {
    static mut ARENA: Arena = Arena([0; HEAP_BYTES]);
    let mut heap = HEAP.lock();
    if heap.size() == 0 {
        // SAFETY: the arena is visible only here, and a heap that has memory is not given it again.
        unsafe { heap.init((&raw mut ARENA).cast(), HEAP_BYTES) };
    }
}

// SAFETY: the list allocator behind the lock hands out disjoint, aligned pieces of its arena.
unsafe impl GlobalAlloc for GlobalHeap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HEAP.lock().allocate_first_fit(layout).map_or(ptr::null_mut(), NonNull::as_ptr)
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        if let Some(pointer) = NonNull::new(pointer) {
            // SAFETY: the caller promises that `alloc` returned the pointer for the same layout.
            unsafe { HEAP.lock().deallocate(pointer, layout) };
        }
    }
}
