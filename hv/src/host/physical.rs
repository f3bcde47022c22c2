//! Access to physical memory by its addresses, for the boot order, and for reading words of the guest's memory that the
//! guest's CPU has read or could read.

#![expect(unsafe_code, reason = "memory is reached through the direct map")]

use core::ops::Range;

use vidar_core::mem::addr::{Gpa, Hpa, Hva, PAGE_SIZE};
use vidar_core::mem::layout::direct;
use vidar_core::mem::view::{Place, Reader};
use vidar_core::mem::walk::ReadGuest;

use super::window;
use crate::arch::instructions;

/// Returns the bytes at `range`.
///
/// # Safety
/// The range is memory in the direct map, and nothing writes to it while the result is in use.
pub unsafe fn bytes<'a>(range: &Range<Hpa>) -> &'a [u8] {
    let length = range.end.0.saturating_sub(range.start.0) as usize;
    // SAFETY: the caller promises that the range is in the direct map and that nothing writes to it while the result is
    // in use.
    unsafe { core::slice::from_raw_parts(direct(range.start).0 as *const u8, length) }
}

/// Copies `from` to `to`; the two may overlap.
///
/// # Safety
/// Both are RAM in the direct map. Nothing writes to the source meanwhile, and nothing at the destination is in use.
pub unsafe fn copy(from: &Range<Hpa>, to: Hpa) {
    let length = from.end.0.saturating_sub(from.start.0) as usize;
    // SAFETY: the caller promises that both are RAM in the direct map, that the source does not change, and that
    // nothing at the destination is in use. `ptr::copy` allows an overlap.
    unsafe { core::ptr::copy(direct(from.start).0 as *const u8, direct(to).0 as *mut u8, length) };
}

/// Copies `bytes` to the memory at `to`.
///
/// # Safety
/// The destination is RAM in the direct map, and nothing there is in use.
pub unsafe fn write(to: Hpa, bytes: &[u8]) {
    // SAFETY: the caller promises that the destination is RAM in the direct map and that nothing there is in use.
    unsafe { core::ptr::copy(bytes.as_ptr(), direct(to).0 as *mut u8, bytes.len()) };
}

/// Writes one byte. Returns true if memory then holds it, and false if it does not, as in ROM.
///
/// # Safety
/// The address is that of RAM or ROM in the direct map, and nothing there is in use.
pub unsafe fn put(at: Hpa, byte: u8) -> bool {
    let place = direct(at).0 as *mut u8;
    // SAFETY: the caller promises that the address is in the direct map and that nothing there is in use. A write to
    // ROM has no effect.
    unsafe {
        place.write_volatile(byte);
        place.read_volatile() == byte
    }
}

/// Reads the guest's memory at the host-physical addresses that a [`Reader`] finds.
#[derive(Debug, Clone, Copy)]
pub struct GuestReader(pub Reader);

impl ReadGuest for GuestReader {
    #[inline]
    fn word(&self, address: Gpa) -> Option<u64> {
        match self.0.place(address.align_down(8))? {
            // SAFETY: the word is in the direct map, and Vidar has no references into the guest's memory. The word may
            // belong to a device. Reading it then does nothing that the guest's CPU could not do, or has not just done.
            Place::Direct(word) => Some(unsafe { read(direct(word)) }),
            Place::Window(word) => through_window(word),
        }
    }

    fn page(&self, address: Gpa) -> Option<Hpa> {
        self.0.page(address)
    }
}

/// Reads a word that is not in the direct map. Returns `None` if the CPU faults, or has no per-CPU block yet.
#[cold]
fn through_window(word: Hpa) -> Option<u64> {
    let page = word.align_down(PAGE_SIZE);
    let read = |at: Hva| {
        // SAFETY: the page is mapped while this runs, and Vidar has no references into the guest's memory. An address
        // that comes from the guest may have bits that the CPU reserves, such as those that select an encryption key.
        // The read then faults, and the fix-up catches the fault.
        unsafe { instructions::read_checked(at.0 + word.0 % PAGE_SIZE) }
    };
    window::with_page(page, read)?.ok()
}

/// Reads a word that other CPUs and devices may write at the same time.
///
/// # Safety
/// The word is mapped, and no reference to it exists.
unsafe fn read(at: Hva) -> u64 {
    // SAFETY: the caller promises that the word is mapped and that no reference to it exists. The read is volatile, so
    // a concurrent write is harmless.
    unsafe { (at.0 as *const u64).read_volatile() }
}
