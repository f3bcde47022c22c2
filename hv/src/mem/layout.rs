//! Where things are in Vidar's address space, and the image's place in physical memory.
//!
//! | from | what |
//! |---|---|
//! | `DIRECT_MAP` | all physical memory but the image, read-write, never executable |
//! | `STACKS` | the stacks, each with an unmapped page below it |
//! | `IMAGE_BASE` | the image, each section with no more rights than it needs |

use core::ops::Range;

use super::addr::{Hpa, Hva};

/// Where physical address 0 is mapped.
pub const DIRECT_MAP: u64 = 0xffff_8000_0000_0000;
/// Slot of [`DIRECT_MAP`] in the level-4 table.
pub const DIRECT_MAP_SLOT: u64 = DIRECT_MAP >> 39 & 511;
/// Where stacks are mapped.
pub const STACKS: u64 = 0xffff_ff00_0000_0000;
/// Where physical address 0 would be in the image's mapping: the linker script's IMAGE_BASE.
pub const IMAGE_BASE: u64 = 0xffff_ffff_8000_0000;

/// The address of `address` in the direct map.
pub const fn direct(address: Hpa) -> Hva {
    Hva(address.0 + DIRECT_MAP)
}

/// A piece of the image and what may be done with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section {
    /// Its physical addresses, whole pages.
    pub range: Range<Hpa>,
    /// It may be written.
    pub writable: bool,
    /// It may be executed.
    pub executable: bool,
}

#[cfg(target_os = "none")]
pub use image::*;

#[cfg(target_os = "none")]
#[expect(unsafe_code, reason = "linker symbols are named here")]
mod image {
    use super::*;

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

    fn physical(symbol: &'static [u8; 0]) -> Hpa {
        Hpa(symbol.as_ptr() as u64 - IMAGE_BASE)
    }

    fn between(start: &'static [u8; 0], end: &'static [u8; 0]) -> Range<Hpa> {
        physical(start)..physical(end)
    }

    /// All memory that Vidar keeps: the image and the frames behind it.
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
        [
            Section { range: between(&TEXT_START, &TEXT_END), writable: false, executable: true },
            Section { range: between(&RODATA_START, &RODATA_END), writable: false, executable: false },
            Section { range: between(&DATA_START, &DATA_END), writable: true, executable: false },
        ]
    }
}
