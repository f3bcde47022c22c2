//! A window of 2 MiB through which any physical address can be reached.

#![expect(unsafe_code, reason = "page tables are memory that the CPU reads")]

use core::arch::asm;

use crate::image::physical;

/// Where the window is: the first address that the second entry of the top table maps.
const WINDOW: u64 = 1 << 39;
const SIZE: u64 = 2 << 20;

/// Present, writable, accessed.
const TABLE: u64 = 0x23;
/// Open to CPL 3.
const USER: u64 = 4;
/// Present, writable, not cached, accessed, dirty, 2 MiB.
const LARGE_PAGE: u64 = 0xfb;

/// Present, writable, accessed, dirty, 4 KiB.
const SMALL_PAGE: u64 = 0x63;

/// Present, accessed, dirty, and so, as it is not writable, a page of a shadow stack: 4 KiB.
const SHADOW_STACK: u64 = 0x61;

/// A page of eight-byte words.
#[repr(C, align(4096))]
pub struct Table(pub [u64; 512]);

static mut DIRECTORY_POINTERS: Table = Table([0; 512]);
static mut DIRECTORY: Table = Table([0; 512]);
static mut PAGES: Table = Table([0; 512]);

unsafe extern "C" {
    /// The top table, of the entry code.
    static mut page_tables: [u64; 512];
}

/// The tables of the entry code: the top one, its pointers for low and for high addresses, four directories that map
/// the first 4 GiB, and one for the image.
pub fn tables() -> *const [u64; 512] {
    &raw const page_tables
}

/// Lets the window show small pages, side by side; returns where the first one is now.
pub fn show_pages<const N: usize>(addresses: [u64; N]) -> u64 {
    show_entries(addresses.map(|address| address | SMALL_PAGE))
}

/// Lets the window show a page as one of a shadow stack; returns where it is now.
pub fn show_shadow_stack(address: u64) -> u64 {
    show_entries([address | SHADOW_STACK])
}

/// Lets the window show a page by this entry, and the tables above it be open to CPL 3; returns where it is now.
pub fn show_user(address: u64, entry: u64) -> u64 {
    let place = show_entries([address | entry]);
    // SAFETY: as in `show`.
    unsafe {
        (&raw mut DIRECTORY.0[0]).write_volatile(physical(&raw const PAGES) | TABLE | USER);
        (&raw mut DIRECTORY_POINTERS.0[0]).write_volatile(physical(&raw const DIRECTORY) | TABLE | USER);
        (&raw mut page_tables).cast::<u64>().add(1).write_volatile(physical(&raw const DIRECTORY_POINTERS) | TABLE | USER);
        asm!("invlpg [{}]", in(reg) place, options(nostack, preserves_flags));
    }
    place
}

/// Lets the window show small pages by these entries, side by side; returns where the first one is now.
pub fn show_entries<const N: usize>(entries: [u64; N]) -> u64 {
    show(0);
    // SAFETY: as in `show`.
    unsafe {
        let (directory, pages) = (&raw mut DIRECTORY, &raw mut PAGES);
        for (index, entry) in entries.into_iter().enumerate() {
            (*pages).0[index] = entry;
        }
        (&raw mut (*directory).0[0]).write_volatile(physical(pages) | TABLE);
        for index in 0..N as u64 {
            asm!("invlpg [{}]", in(reg) WINDOW + index * 0x1000, options(nostack, preserves_flags));
        }
    }
    WINDOW
}

/// Lets the window show the 2 MiB around the physical address; returns where the address itself is now.
pub fn show(address: u64) -> u64 {
    // SAFETY: one CPU, and the tables are reached only here. The entries map nothing that is in use.
    unsafe {
        let directory = &raw mut DIRECTORY;
        let pointers = &raw mut DIRECTORY_POINTERS;
        (*directory).0[0] = address & !(SIZE - 1) | LARGE_PAGE;
        (*pointers).0[0] = physical(directory) | TABLE;
        (&raw mut page_tables).cast::<u64>().add(1).write_volatile(physical(pointers) | TABLE);
        asm!("invlpg [{}]", in(reg) WINDOW, options(nostack, preserves_flags));
    }
    WINDOW + address % SIZE
}
