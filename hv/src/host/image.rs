//! The image's place in physical memory, from the symbols of the linker script.

#![expect(unsafe_code, reason = "linker symbols are named here")]

use core::ops::Range;
use core::sync::atomic::{AtomicU64, Ordering};

use vidar_core::kept_log::area::AREA_BYTES;
use vidar_core::mem::addr::{Hpa, Hva};
use vidar_core::mem::layout::{DIRECT_MAP, IMAGE_BASE, LINK_ADDRESS, REGION_SIZE};

/// A part of the image, with the rights of its mapping.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section {
    /// The physical addresses of the section, in whole pages.
    pub range: Range<Hpa>,
    /// The address at which the section is mapped.
    pub at: Hva,
    /// True if the section is writable.
    pub writable: bool,
    /// True if the section is executable.
    pub executable: bool,
}

macro_rules! symbols {
    ($($name:ident = $link_name:literal),* $(,)?) => {
        unsafe extern "C" {
            $(#[link_name = $link_name] safe static $name: [u8; 0];)*
        }
    };
}

symbols! {
    REGION_START = "vidar_region_start",
    REGION_END = "vidar_region_end",
    KEPT_START = "vidar_kept_start",
    KEPT_END = "vidar_kept_end",
    TEXT_START = "vidar_text_start",
    TEXT_END = "vidar_text_end",
    RODATA_START = "vidar_rodata_start",
    RODATA_END = "vidar_rodata_end",
    DATA_START = "vidar_data_start",
    DATA_END = "vidar_data_end",
    FRAMES_START = "vidar_frames_start",
    BOOT_FRAMES_END = "vidar_boot_frames_end",
}

/// The physical address at which the loader has put the image.
static LOADED_AT: AtomicU64 = AtomicU64::new(LINK_ADDRESS);

/// Notes where the loader has put the image. Must be called before any other function of this module. Panics if the
/// address is not a multiple of 2 MiB.
pub fn loaded_at(address: Hpa) {
    assert!(
        address.is_aligned(REGION_SIZE),
        "the image was loaded at {address}, which is not a multiple of 2 MiB"
    );
    LOADED_AT.store(address.0, Ordering::Relaxed);
}

/// Returns the physical address of a symbol of the image.
fn physical(symbol: &'static [u8; 0]) -> Hpa {
    translate(Hva(symbol.as_ptr() as u64))
}

/// Returns the physical address of `address`, which must be in the image or in the direct map.
pub fn translate(address: Hva) -> Hpa {
    match address.0.checked_sub(IMAGE_BASE) {
        Some(offset) => Hpa(offset + LOADED_AT.load(Ordering::Relaxed)),
        None => Hpa(address.0 - DIRECT_MAP),
    }
}

/// Returns the physical addresses from one symbol of the image to another.
fn between(start: &'static [u8; 0], end: &'static [u8; 0]) -> Range<Hpa> {
    physical(start)..physical(end)
}

/// Returns the region: the image and the frames after it.
pub fn region() -> Range<Hpa> {
    between(&REGION_START, &REGION_END)
}

/// Returns the memory of the logs that are kept over a reset, which has [`AREA_BYTES`] bytes: its physical addresses,
/// and the address at which it is mapped.
pub fn kept() -> (Range<Hpa>, Hva) {
    let range = between(&KEPT_START, &KEPT_END);
    let size = range.end.0 - range.start.0;
    assert_eq!(size, AREA_BYTES as u64, "the linker script has another size for the kept logs");
    (range, Hva(KEPT_START.as_ptr() as u64))
}

/// Returns the frames that are free from the first instruction of Rust on.
pub fn free_frames() -> Range<Hpa> {
    between(&BOOT_FRAMES_END, &REGION_END)
}

/// Returns the frames of the trampoline's page tables and stack, which are free once Vidar uses its own.
pub fn boot_frames() -> Range<Hpa> {
    between(&FRAMES_START, &BOOT_FRAMES_END)
}

/// Returns the sections that stay mapped at the image's own addresses.
pub fn sections() -> [Section; 4] {
    let section = |start: &'static [u8; 0], end, writable, executable| Section {
        range: between(start, end),
        at: Hva(start.as_ptr() as u64),
        writable,
        executable,
    };
    [
        section(&TEXT_START, &TEXT_END, false, true),
        section(&RODATA_START, &RODATA_END, false, false),
        section(&DATA_START, &DATA_END, true, false),
        section(&KEPT_START, &KEPT_END, true, false),
    ]
}
