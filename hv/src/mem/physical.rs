//! Physical memory by its addresses: what the boot order reads and places, and the words of guest RAM that the guest's
//! CPU would read.

#![expect(unsafe_code, reason = "memory is reached through the direct map")]

use core::ops::Range;

use super::addr::Hpa;
use super::layout::direct;

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

/// Reads words of guest RAM, which other CPUs and devices may write meanwhile.
///
/// # Safety
/// The words lie in RAM in the direct map.
pub unsafe fn read_words<const N: usize>(from: Hpa) -> [u64; N] {
    let words = direct(from).0 as *const u64;
    // SAFETY: the caller's promise; no reference into the guest's RAM is made.
    core::array::from_fn(|index| unsafe { words.wrapping_add(index).read_volatile() })
}
