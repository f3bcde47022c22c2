//! Windows: for each CPU a place in Vidar's address space, where it maps pages that it chooses, one after another, for as
//! long as it needs them.

#![expect(unsafe_code, reason = "page tables that are in use are changed here")]

use core::iter;

use vidar_core::mem::addr::{Hpa, Hva, PAGE_SIZE};
use vidar_core::mem::layout::{WINDOW_RUN, direct, window};
use x86_64::VirtAddr;
use x86_64::instructions::tlb;
use x86_64::registers::control::Cr3;

/// The address in an entry.
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
/// Present and no-execute; so the page can be read alone.
const READ_ONLY: u64 = 1 | 1 << 63;

/// Runs `then` while `pages` are mapped in the window of `cpu`, which this CPU is, from the address on that `then` gets. No
/// more than [`WINDOW_RUN`] are mapped. To find the next of them, `pages` may use [`with_page`].
pub fn with_pages<R>(cpu: u32, pages: impl Iterator<Item = Hpa>, then: impl FnOnce(Hva) -> R) -> R {
    with(cpu, 0, pages.take(WINDOW_RUN), then)
}

/// Runs `then` while `page` is mapped in the window of `cpu`, which this CPU is, at the address that `then` gets.
pub fn with_page<R>(cpu: u32, page: Hpa, then: impl FnOnce(Hva) -> R) -> R {
    with(cpu, WINDOW_RUN, iter::once(page), then)
}

/// Maps `pages` from the entry `first` on, one after another, and none of them any more when `then` has run.
fn with<R>(cpu: u32, first: usize, pages: impl Iterator<Item = Hpa>, then: impl FnOnce(Hva) -> R) -> R {
    let entries = table(window(cpu));
    let at = |index: usize| Hva(window(cpu).0 + index as u64 * PAGE_SIZE);
    let set = |index: usize, entry: u64| {
        // SAFETY: the table is that of this CPU's window, where Vidar has no references, and the callers keep `index` below
        // its length.
        unsafe { entries.wrapping_add(index).write_volatile(entry) };
        tlb::flush(VirtAddr::new(at(index).0));
    };
    let mut end = first;
    for page in pages {
        set(end, page.0 & ADDRESS | READ_ONLY);
        end += 1;
    }
    let result = then(at(first));
    (first..end).for_each(|index| set(index, 0));
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
