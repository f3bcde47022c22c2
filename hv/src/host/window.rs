//! The windows: each CPU has a part of Vidar's address space in which it maps pages of its choice, for as long as it
//! needs them.

#![expect(unsafe_code, reason = "page tables that are in use are changed here")]

use core::iter;

use vidar_core::mem::addr::{Hpa, Hva, PAGE_SIZE};
use vidar_core::mem::layout::{WINDOW_RUN, direct, window};
use x86_64::VirtAddr;
use x86_64::instructions::tlb;
use x86_64::registers::control::Cr3;

use crate::arch::percpu;

/// The bits of a page-table entry that hold the address.
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
/// The flags of an entry for a page that can only be read: present and no-execute.
const READ_ONLY: u64 = 1 | 1 << 63;

/// Maps `pages` in this CPU's window, calls `then` with the address of the first, and unmaps them again. Returns what
/// `then` returns, or `None` if this CPU has no per-CPU block yet. At most [`WINDOW_RUN`] pages are mapped. The
/// iterator may itself use [`with_page`].
pub fn with_pages<R>(pages: impl Iterator<Item = Hpa>, then: impl FnOnce(Hva) -> R) -> Option<R> {
    with(0, pages.take(WINDOW_RUN), then)
}

/// Maps `page` in this CPU's window, calls `then` with its address, and unmaps it again. Returns what `then` returns,
/// or `None` if this CPU has no per-CPU block yet.
pub fn with_page<R>(page: Hpa, then: impl FnOnce(Hva) -> R) -> Option<R> {
    with(WINDOW_RUN, iter::once(page), then)
}

/// Maps `pages` from the entry `first` of this CPU's window on, calls `then` with the address of that entry, and unmaps
/// the pages again.
fn with<R>(first: usize, pages: impl Iterator<Item = Hpa>, then: impl FnOnce(Hva) -> R) -> Option<R> {
    let window = window(percpu::current()?.index);
    let entries = table(window);
    let at = |index: usize| Hva(window.0 + index as u64 * PAGE_SIZE);
    let set = |index: usize, entry: u64| {
        // SAFETY: the table is that of this CPU's window, into which Vidar has no references, and the callers keep
        // `index` below the number of its entries.
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
    Some(result)
}

/// Returns the entries of the window at `at`, found in the page tables that this CPU uses.
fn table(at: Hva) -> *mut u64 {
    let mut table = Hpa(Cr3::read().0.start_address().as_u64());
    for shift in [39, 30, 21] {
        let entries = direct(table).0 as *const u64;
        // SAFETY: Vidar's page tables are in its own frames, which are in the direct map, and `HostTables::map_window`
        // has made those of every window. Nothing changes them afterwards, except for the entries of a window's pages.
        let entry = unsafe { entries.wrapping_add((at.0 >> shift & 511) as usize).read_volatile() };
        table = Hpa(entry & ADDRESS);
    }
    direct(table).0 as *mut u64
}
