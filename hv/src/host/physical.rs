//! Physical memory by its addresses: what the boot order reads and places, and the words of guest RAM that the guest's
//! CPU would read.

#![expect(unsafe_code, reason = "memory is reached through the direct map")]

use core::ops::Range;

use vidar_core::mem::addr::{Gpa, Hpa, Hva, PAGE_SIZE};
use vidar_core::mem::layout::direct;
use vidar_core::mem::view::{Place, Reader};
use vidar_core::mem::walk::ReadGuest;

use super::window;
use crate::arch::{instructions, percpu};

/// The bytes at `range`.
///
/// # Safety
/// The range is RAM in the direct map, and nothing writes it while the result is in use.
pub unsafe fn bytes<'a>(range: &Range<Hpa>) -> &'a [u8] {
    let length = range.end.0.saturating_sub(range.start.0) as usize;
    // SAFETY: the caller's promise.
    unsafe { core::slice::from_raw_parts(direct(range.start).0 as *const u8, length) }
}

/// Copies `from` to `to`; the two may overlap.
///
/// # Safety
/// Both are RAM in the direct map, and nothing that lives there is in use.
pub unsafe fn copy(from: &Range<Hpa>, to: Hpa) {
    let length = from.end.0.saturating_sub(from.start.0) as usize;
    // SAFETY: the caller's promise.
    unsafe { core::ptr::copy(direct(from.start).0 as *const u8, direct(to).0 as *mut u8, length) };
}

/// Writes `bytes` to `to`.
///
/// # Safety
/// As for [`copy`].
pub unsafe fn write(to: Hpa, bytes: &[u8]) {
    // SAFETY: the caller's promise.
    unsafe { core::ptr::copy(bytes.as_ptr(), direct(to).0 as *mut u8, bytes.len()) };
}

/// Writes one byte, and returns true if it is there then, as it is not in ROM.
///
/// # Safety
/// As for [`copy`], but that the address may be that of ROM.
pub unsafe fn put(at: Hpa, byte: u8) -> bool {
    let place = direct(at).0 as *mut u8;
    // SAFETY: the caller's promise.
    unsafe {
        place.write_volatile(byte);
        place.read_volatile() == byte
    }
}

/// The guest's memory, read where a [`Reader`] finds it.
#[derive(Debug, Clone, Copy)]
pub struct GuestReader(pub Reader);

impl ReadGuest for GuestReader {
    #[inline]
    fn word(&self, address: Gpa) -> Option<u64> {
        match self.0.place(address.align_down(8))? {
            // SAFETY: the word is in the direct map, where the guest's memory is read and never borrowed. It may be a device's:
            // then reading it does no more than the guest's CPU could do, or has just done.
            Place::Direct(word) => Some(unsafe { read(direct(word)) }),
            Place::Window(word) => through_window(word),
        }
    }

    fn page(&self, address: Gpa) -> Option<Hpa> {
        self.0.page(address)
    }
}

/// Reads a word that is not in the direct map.
#[cold]
fn through_window(word: Hpa) -> Option<u64> {
    let page = word.align_down(PAGE_SIZE);
    let cpu = percpu::current()?.index;
    let read = |at: Hva| {
        // SAFETY: the page is mapped meanwhile, and the rest is as above. An address that comes from the guest may have
        // bits that the CPU reserves, such as those that choose a key for encryption: then the window's entry faults.
        unsafe { instructions::read_checked(at.0 + word.0 % PAGE_SIZE) }
    };
    window::with_page(cpu, page, read).ok()
}

/// Reads a word that other CPUs and devices may write meanwhile.
///
/// # Safety
/// It is mapped, and no reference to it exists.
unsafe fn read(at: Hva) -> u64 {
    // SAFETY: the caller's promise.
    unsafe { (at.0 as *const u64).read_volatile() }
}
