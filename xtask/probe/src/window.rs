//! A window of 2 MiB in the address space, through which any physical address can be reached.

#![expect(unsafe_code, reason = "page tables are memory that the CPU reads")]

use core::arch::asm;

use crate::image::physical;

/// The address of the window, which is the first one that the second entry of the top table maps.
const WINDOW: u64 = 1 << 39;
const SIZE: u64 = 2 << 20;

/// Flags of an entry that refers to a table: present, writable, accessed.
const TABLE: u64 = 0x23;
/// The flag that lets CPL 3 access a page.
const USER: u64 = 4;
/// Flags of a page of 2 MiB: present, writable, not cached, accessed, dirty.
const LARGE_PAGE: u64 = 0xfb;

/// Flags of a page of 4 KiB: present, writable, accessed, dirty.
const SMALL_PAGE: u64 = 0x63;

/// Flags of a page of 4 KiB for a shadow stack: present, accessed, dirty, and not writable.
const SHADOW_STACK: u64 = 0x61;

/// A page of eight-byte words.
#[repr(C, align(4096))]
pub struct Table(pub [u64; 512]);

static mut DIRECTORY_POINTERS: Table = Table([0; 512]);
static mut DIRECTORY: Table = Table([0; 512]);
static mut PAGES: Table = Table([0; 512]);

unsafe extern "C" {
    /// The first of the entry code's page tables, which is the top one.
    static mut page_tables: [u64; 512];
}

/// Returns the entry code's page tables. They are the top table, the directory pointers of low and of high addresses,
/// four directories that map the first 4 GiB, and the directory that maps the image.
pub fn tables() -> *const [u64; 512] {
    &raw const page_tables
}

/// Maps pages of 4 KiB into the window, one after the other. Returns the address of the first.
pub fn show_pages<const N: usize>(addresses: [u64; N]) -> u64 {
    show_entries(addresses.map(|address| address | SMALL_PAGE))
}

/// Maps a page of 4 KiB into the window as a page of a shadow stack. Returns its address there.
pub fn show_shadow_stack(address: u64) -> u64 {
    show_entries([address | SHADOW_STACK])
}

/// Maps a page of 4 KiB into the window by an entry with these flags, and lets CPL 3 through the tables above it.
/// Returns its address there.
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

/// Maps pages of 4 KiB into the window by these entries, one after the other. Returns the address of the first.
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

/// Maps the 2 MiB around the physical address into the window. Returns the address at which it can be reached.
pub fn show(address: u64) -> u64 {
    // SAFETY: one CPU runs, only this file changes the window's tables, and the window maps nothing that the image
    // uses.
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
