//! The guest's low memory that lies elsewhere, and what is in its place: code that leads CPUs to Vidar.

#![expect(unsafe_code, reason = "the guest's low memory is moved")]

use core::ops::Range;

use vidar_core::boot::landing;
use vidar_core::mem::addr::{Hpa, PAGE_SIZE};
use vidar_core::mem::moved::MovedPages;
use vidar_core::mem::ranges::RangeSet;

use super::ap::Trampoline;
use crate::host::physical;

/// What of the guest's low memory is moved, and why.
#[derive(Debug)]
pub enum LowMemory {
    /// Nothing is moved.
    InPlace,
    /// All RAM below 640 KiB but the first page: start-up IPIs for its addresses lead to Vidar.
    Landing(Trampoline, MovedPages),
}

impl LowMemory {
    /// Returns what is moved if start-up IPIs lead to `trampoline`: the guest's `ram` below 640 KiB but for the first
    /// page, to `to`.
    pub fn landing(trampoline: Trampoline, ram: &RangeSet, to: Hpa) -> Self {
        Self::Landing(trampoline, MovedPages::new(ram, &landing::WINDOW, to))
    }

    /// Returns the guest's pages that are moved, or `None` if no pages are moved.
    pub const fn moved(&self) -> Option<&MovedPages> {
        match self {
            Self::InPlace => None,
            Self::Landing(_, moved) => Some(moved),
        }
    }

    /// Returns the machine's addresses at which CPUs come to Vidar, so that no device may be laid there.
    pub const fn window(&self) -> Option<Range<Hpa>> {
        match self {
            Self::InPlace => None,
            Self::Landing(..) => Some(landing::WINDOW),
        }
    }

    /// Copies the guest's pages that are to be moved to their new places, and writes to the pages that they leave what
    /// leads CPUs to Vidar.
    ///
    /// # Safety
    /// The guest's memory has been filled, and no CPU executes anything in those pages.
    pub unsafe fn lay(&self) {
        for page in self.moved().into_iter().flat_map(MovedPages::pages) {
            let to = self.moved().and_then(|moved| moved.place(page.identity()));
            if let Some(to) = to {
                // SAFETY: the page is RAM of the guest, and its new place was allocated for it. The guest does not run
                // yet, and the caller promises that no CPU executes in the page.
                unsafe {
                    physical::copy(&(page..page + PAGE_SIZE), to);
                    self.fill(page);
                }
            }
        }
    }

    /// Writes to `page`, which the guest's page has left, what leads CPUs to Vidar: the trampoline to its own, and a
    /// stub to every other.
    ///
    /// # Safety
    /// The page is RAM in the direct map, and nothing there is in use.
    unsafe fn fill(&self, page: Hpa) {
        // SAFETY: the caller promises that the page is RAM and that nothing there is in use. All that is written to it
        // is shorter than the page.
        unsafe {
            match self {
                Self::InPlace => {}
                Self::Landing(trampoline, _) if trampoline.page().contains(&page) => {
                    trampoline.lay();
                }
                Self::Landing(trampoline, _) => {
                    physical::write(page, &landing::stub(trampoline.vector()));
                }
            }
        }
    }
}
