//! Where things are in Vidar's address space, and the image's place in physical memory.
//!
//! | from | what |
//! |---|---|
//! | `DIRECT_MAP` | physical memory but the image, read-write, never executable |
//! | `SCREEN` | the framebuffer, write-combining, if there is one |
//! | `STACKS` | the stacks, each with an unmapped page below it |
//! | `WINDOWS` | a window of 2 MiB for each CPU, empty but while it needs something there |
//! | `IMAGE_BASE` | the image, each section with no more rights than it needs |

use core::ops::Range;

use super::addr::{Hpa, Hva, PAGE_SIZE};

/// Where physical address 0 is mapped.
pub const DIRECT_MAP: u64 = 0xffff_8000_0000_0000;
/// Slot of [`DIRECT_MAP`] in the level-4 table.
pub const DIRECT_MAP_SLOT: u64 = DIRECT_MAP >> 39 & 511;
/// Where the framebuffer is mapped.
pub const SCREEN: u64 = 0xffff_fe80_0000_0000;
/// Where stacks are mapped.
pub const STACKS: u64 = 0xffff_ff00_0000_0000;
/// Where the windows of the CPUs are: so far above the first stack that thousands of CPUs have room for theirs.
pub const WINDOWS: u64 = STACKS + (512 << 20);
/// Pages in a window: as many as one table has entries.
pub const WINDOW_PAGES: usize = 512;
/// As many of them can be mapped one after another; the last page of a window is for words that are read meanwhile.
pub const WINDOW_RUN: usize = WINDOW_PAGES - 1;
/// Where the image begins: the linker script's IMAGE_BASE.
pub const IMAGE_BASE: u64 = 0xffff_ffff_8000_0000;
/// Where the image is loaded by a loader that cannot choose: the linker script's LINK_ADDRESS.
pub const LINK_ADDRESS: u64 = 0x20_0000;
/// Bytes in the region of the image and its frames, and what its address is a multiple of: the linker script's REGION_SIZE.
pub const REGION_SIZE: u64 = 0x20_0000;

/// The address of `address` in the direct map.
pub const fn direct(address: Hpa) -> Hva {
    Hva(address.0 + DIRECT_MAP)
}

/// The window of a CPU.
pub const fn window(cpu: u32) -> Hva {
    Hva(WINDOWS + cpu as u64 * (WINDOW_PAGES as u64 * PAGE_SIZE))
}

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

#[cfg(target_os = "none")]
pub use image::*;

#[cfg(target_os = "none")]
#[expect(unsafe_code, reason = "linker symbols are named here")]
mod image {
    use core::sync::atomic::{AtomicU64, Ordering};

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
}
