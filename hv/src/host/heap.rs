//! The heap, for the boot order and for objects that live as long as Vidar. The exit path allocates nothing.
//!
//! **Boot takes what it is given.** No size and no count that comes from the firmware, from the loader or from the user
//! decides how much of this heap is needed. ACPI tables, memory maps, modules and command lines are read, and changed,
//! where they lie. Where Vidar must note something about them, the number of notes has a bound
//! ([`MAX_RANGES`](vidar_core::mem::ranges::MAX_RANGES), [`MAX_CPUS`](vidar_core::firmware::madt::MAX_CPUS),
//! [`MAX_UNITS`](vidar_core::firmware::dmar::MAX_UNITS)). What exceeds the bound is left out, or Vidar refuses to start
//! with a message. Further CPUs need more heap, which [`add`] takes from other memory.
//! `core/tests/recorded_maps/heap.rs` tests how much heap all of this needs at most.

#![expect(unsafe_code, reason = "a global allocator is an unsafe trait")]

use core::alloc::{GlobalAlloc, Layout};
use core::ptr::{self, NonNull};

use linked_list_allocator::Heap;
use spin::Mutex;
use vidar_core::mem::addr::Hva;
use vidar_core::mem::layout::HEAP_BYTES;

/// The memory of the heap in the image.
#[repr(C, align(16))]
struct Arena([u8; HEAP_BYTES]);

/// The heap in the image, and the heap that [`add`] has added.
static HEAPS: Mutex<[Heap; 2]> = Mutex::new([Heap::empty(), Heap::empty()]);

/// The allocator that the image installs. Interrupts are off wherever Vidar runs, and the NMI handler allocates
/// nothing, so no CPU can wait for a lock that it holds itself.
pub struct GlobalHeap;

/// Gives the heap its memory. Must be called before the first allocation; later calls do nothing.
pub fn init() {
    static mut ARENA: Arena = Arena([0; HEAP_BYTES]);
    let [heap, _] = &mut *HEAPS.lock();
    if heap.size() == 0 {
        // SAFETY: only this function can name the arena, and it gives the arena to the heap only once, while the heap
        // has no memory.
        unsafe { heap.init((&raw mut ARENA).cast(), HEAP_BYTES) };
    }
}

/// Adds `bytes` bytes at `start` to the heap, for a machine that needs more. Panics at a second call.
///
/// # Safety
/// The bytes are mapped, writable, for good, and used for nothing else.
pub unsafe fn add(start: Hva, bytes: usize) {
    let [_, more] = &mut *HEAPS.lock();
    assert!(more.size() == 0, "the heap has been added to already");
    // SAFETY: the caller promises that the bytes are mapped and writable for good and used for nothing else.
    unsafe { more.init(start.0 as *mut u8, bytes) };
}

// SAFETY: the list allocators, under their lock, hand out disjoint and aligned pieces of the memory that they were
// given.
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
                // SAFETY: the caller promises that `alloc` has returned the pointer for the same layout, and the
                // pointer lies in this heap.
                unsafe { heap.deallocate(pointer, layout) };
            }
        }
    }
}
