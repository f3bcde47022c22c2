//! The heap: for the boot order and for what lives as long as Vidar. The exit path allocates nothing.
//!
//! **Boot takes what it is given.** No size and no count that comes from firmware, from the loader or from the user decides how
//! much of this heap is needed. What they hand over is read, and changed, where it lies: ACPI tables, memory maps, modules,
//! command lines. What has to be noted of it has a bound ([`ranges::MAX_RANGES`](vidar_core::mem::ranges::MAX_RANGES), [`madt::MAX_CPUS`](vidar_core::firmware::madt::MAX_CPUS)), and what
//! is beyond it is left out or refused in one sentence. CPUs bring their own heap along, by [`add`]. `core/tests/recorded_maps/heap.rs` has
//! the bound of all of it.

#![expect(unsafe_code, reason = "a global allocator is an unsafe trait")]

use core::alloc::{GlobalAlloc, Layout};
use core::ptr::{self, NonNull};

use linked_list_allocator::Heap;
use spin::Mutex;
use vidar_core::mem::addr::Hva;
use vidar_core::mem::layout::HEAP_BYTES;

#[repr(C, align(16))]
struct Arena([u8; HEAP_BYTES]);

/// The arena, and what was added to it.
static HEAPS: Mutex<[Heap; 2]> = Mutex::new([Heap::empty(), Heap::empty()]);

/// The allocator that the image installs. Interrupts are off wherever Vidar runs, and the NMI handler allocates
/// nothing, so the lock cannot be taken twice by one CPU.
pub struct GlobalHeap;

/// Gives the heap its memory; before the first allocation.
pub fn init() {
    static mut ARENA: Arena = Arena([0; HEAP_BYTES]);
    let [heap, _] = &mut *HEAPS.lock();
    if heap.size() == 0 {
        // SAFETY: the arena is visible only here, and a heap that has memory is not given it again.
        unsafe { heap.init((&raw mut ARENA).cast(), HEAP_BYTES) };
    }
}

/// Adds so many bytes at `start`, for a machine that has more to note; once.
///
/// # Safety
/// They are mapped there, writable, for good, and used for nothing else.
pub unsafe fn add(start: Hva, bytes: usize) {
    let [_, more] = &mut *HEAPS.lock();
    assert!(more.size() == 0, "the heap is added to once");
    // SAFETY: the caller's promise.
    unsafe { more.init(start.0 as *mut u8, bytes) };
}

// SAFETY: the list allocators behind the lock hand out disjoint, aligned pieces of what they were given.
unsafe impl GlobalAlloc for GlobalHeap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let heaps = &mut *HEAPS.lock();
        let found = heaps.iter_mut().find_map(|heap| heap.allocate_first_fit(layout).ok());
        found.map_or(ptr::null_mut(), NonNull::as_ptr)
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        if let Some(pointer) = NonNull::new(pointer) {
            let heaps = &mut *HEAPS.lock();
            let owns = |heap: &&mut Heap| (heap.bottom()..heap.top()).contains(&pointer.as_ptr());
            if let Some(heap) = heaps.iter_mut().find(owns) {
                // SAFETY: the caller promises that `alloc` returned the pointer for the same layout, and it is this heap's.
                unsafe { heap.deallocate(pointer, layout) };
            }
        }
    }
}
