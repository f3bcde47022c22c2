//! Windows: for each CPU a place in Vidar's address space, where it maps pages that it chooses, one after another, for as
//! long as it needs them.

#![expect(unsafe_code, reason = "page tables that are in use are changed here")]

use x86_64::VirtAddr;
use x86_64::instructions::tlb;
use x86_64::registers::control::Cr3;

use super::addr::{Hpa, Hva, PAGE_SIZE};
use super::layout::{WINDOW_PAGES, direct, window};

/// The address in an entry.
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
/// Present and no-execute; so the page can be read alone.
const READ_ONLY: u64 = 1 | 1 << 63;

/// Runs `then` while `pages` are mapped in the window of `cpu`, which this CPU is, from the address on that `then` gets. As
/// many are mapped as a window holds.
pub fn with_pages<R>(cpu: u32, pages: impl Iterator<Item = Hpa>, then: impl FnOnce(Hva) -> R) -> R {
    let at = window(cpu);
    let entries = table(at);
    let entry = |index: usize| entries.wrapping_add(index);
    let flush = |index: usize| tlb::flush(VirtAddr::new(at.0 + index as u64 * PAGE_SIZE));
    let mut mapped = 0;
    for page in pages.take(WINDOW_PAGES) {
        // SAFETY: the table is that of this CPU's window, where Vidar has no references, and `mapped` is below its length.
        unsafe { entry(mapped).write_volatile(page.0 & ADDRESS | READ_ONLY) };
        flush(mapped);
        mapped += 1;
    }
    let result = then(at);
    for index in 0..mapped {
        // SAFETY: as above.
        unsafe { entry(index).write_volatile(0) };
        flush(index);
    }
    result
}

/// The entries of the window at `at`, out of the tables that this CPU uses.
fn table(at: Hva) -> *mut u64 {
    let mut table = Hpa(Cr3::read().0.start_address().as_u64());
    for shift in [39, 30, 21] {
        let entries = direct(table).0 as *const u64;
        // SAFETY: Vidar's tables are in its own frames, which are in the direct map, and `HostTables::map_window` has made
        // those of every window. Nobody changes a window's but its CPU.
        let entry = unsafe { entries.wrapping_add((at.0 >> shift & 511) as usize).read_volatile() };
        table = Hpa(entry & ADDRESS);
    }
    direct(table).0 as *mut u64
}
