//! The image's place in physical memory, by the symbols of the linker script.

#![expect(unsafe_code, reason = "linker symbols are named here")]

use core::ops::Range;
use core::sync::atomic::{AtomicU64, Ordering};

use vidar_core::mem::addr::{Hpa, Hva};
use vidar_core::mem::layout::{DIRECT_MAP, IMAGE_BASE, LINK_ADDRESS, REGION_SIZE};

/// A piece of the image and what may be done with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section {
    /// Its physical addresses, whole pages.
    pub range: Range<Hpa>,
    /// Where it is mapped.
    pub at: Hva,
    /// It may be written.
    pub writable: bool,
    /// It may be executed.
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
    TEXT_START = "vidar_text_start",
    TEXT_END = "vidar_text_end",
    RODATA_START = "vidar_rodata_start",
    RODATA_END = "vidar_rodata_end",
    DATA_START = "vidar_data_start",
    DATA_END = "vidar_data_end",
    FRAMES_START = "vidar_frames_start",
    BOOT_FRAMES_END = "vidar_boot_frames_end",
}

/// Where the loader put the image.
static LOADED_AT: AtomicU64 = AtomicU64::new(LINK_ADDRESS);

/// Says where the loader put the image; before anything else here is asked.
pub fn loaded_at(address: Hpa) {
    assert!(address.is_aligned(REGION_SIZE), "the image was loaded at {address}, inside a 2 MiB page");
    LOADED_AT.store(address.0, Ordering::Relaxed);
}

fn physical(symbol: &'static [u8; 0]) -> Hpa {
    translate(Hva(symbol.as_ptr() as u64))
}

/// Where an address in the image or in the direct map is in physical memory.
pub fn translate(address: Hva) -> Hpa {
    match address.0.checked_sub(IMAGE_BASE) {
        Some(offset) => Hpa(offset + LOADED_AT.load(Ordering::Relaxed)),
        None => Hpa(address.0 - DIRECT_MAP),
    }
}

fn between(start: &'static [u8; 0], end: &'static [u8; 0]) -> Range<Hpa> {
    physical(start)..physical(end)
}

/// The image and the frames behind it.
pub fn region() -> Range<Hpa> {
    between(&REGION_START, &REGION_END)
}

/// The frames that are free from the first instruction of Rust on.
pub fn free_frames() -> Range<Hpa> {
    between(&BOOT_FRAMES_END, &REGION_END)
}

/// The trampoline's page tables and stack, free once Vidar runs on its own.
pub fn boot_frames() -> Range<Hpa> {
    between(&FRAMES_START, &BOOT_FRAMES_END)
}

/// The sections that stay mapped at the image's own addresses.
pub fn sections() -> [Section; 3] {
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
    ]
}
