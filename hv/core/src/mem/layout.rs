//! Where things are in Vidar's address space.
//!
//! | from | what |
//! |---|---|
//! | `DIRECT_MAP` | physical memory but the image, read-write, never executable |
//! | `SCREEN` | the framebuffer, write-combining, if there is one |
//! | `STACKS` | the stacks, each with an unmapped page below it |
//! | `WINDOWS` | a window of 2 MiB for each CPU, empty but while it needs something there |
//! | `IMAGE_BASE` | the image, each section with no more rights than it needs |

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
/// Bytes of the heap that is in the image.
pub const HEAP_BYTES: usize = 160 * 1024;
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
