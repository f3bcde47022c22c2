//! The addresses of the probe's image: the virtual one that it is linked at, and the physical one that it is loaded at.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The virtual address that the image is linked at.
const LINKED_AT: u64 = 0xffff_ffff_8000_0000;

/// The physical address that the image was loaded at.
static LOADED_AT: AtomicU64 = AtomicU64::new(0);

/// Sets the physical address that the image was loaded at.
pub fn set_loaded_at(address: u64) {
    LOADED_AT.store(address, Relaxed);
}

/// Returns the physical address of something in the image.
pub fn physical<T>(thing: *const T) -> u64 {
    thing as u64 - LINKED_AT + LOADED_AT.load(Relaxed)
}
