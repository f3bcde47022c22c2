//! The layout of Vidar's address space.
//!
//! | from | what |
//! |---|---|
//! | `DIRECT_MAP` | all physical memory except for the image: read-write, never executable |
//! | `SCREEN` | the framebuffer, if there is one: write-combining |
//! | `DEVICES` | registers of devices that Vidar uses: uncached |
//! | `STACKS` | the stacks, each with an unmapped page below it |
//! | `WINDOWS` | a window of 2 MiB for each CPU, in which it maps guest pages for a moment |
//! | `IMAGE_BASE` | the image: each section has no more rights than it needs |

use super::addr::{Hpa, Hva, PAGE_SIZE};

/// Virtual address of physical address 0.
pub const DIRECT_MAP: u64 = 0xffff_8000_0000_0000;
/// Index of the entry for [`DIRECT_MAP`] in the level-4 table.
pub const DIRECT_MAP_SLOT: u64 = DIRECT_MAP >> 39 & 511;
/// Virtual address of the framebuffer.
pub const SCREEN: u64 = 0xffff_fe80_0000_0000;
/// Virtual address of the first registers of a device.
pub const DEVICES: u64 = SCREEN + (256 << 30);
/// Virtual address of the first stack.
pub const STACKS: u64 = 0xffff_ff00_0000_0000;
/// Virtual address of the first window. There is room below it for the stacks of thousands of CPUs.
pub const WINDOWS: u64 = STACKS + (512 << 20);
/// Number of pages in a window: the number of entries in a page table.
pub const WINDOW_PAGES: usize = 512;
/// Number of pages of a window that can be mapped in a row. The last page is for words that are read meanwhile.
pub const WINDOW_RUN: usize = WINDOW_PAGES - 1;
/// Size in bytes of the heap in the image.
pub const HEAP_BYTES: usize = 160 * 1024;
/// Virtual address of the image: IMAGE_BASE in the linker script.
pub const IMAGE_BASE: u64 = 0xffff_ffff_8000_0000;
/// Physical address of the image if the loader does not relocate it: LINK_ADDRESS in the linker script.
pub const LINK_ADDRESS: u64 = 0x20_0000;
/// Size and alignment in bytes of the region that holds the image and its frames: REGION_SIZE in the linker script.
pub const REGION_SIZE: u64 = 0x20_0000;

/// Returns the virtual address of `address` in the direct map.
pub const fn direct(address: Hpa) -> Hva {
    Hva(address.0 + DIRECT_MAP)
}

/// Returns the virtual address of the window of the CPU with this number.
pub const fn window(cpu: u32) -> Hva {
    Hva(WINDOWS + cpu as u64 * (WINDOW_PAGES as u64 * PAGE_SIZE))
}
