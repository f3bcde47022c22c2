//! The VMCB of a virtual CPU, in the page where the CPU uses it.

#![expect(unsafe_code, reason = "the CPU writes the page as well, so it is reached through a pointer")]

use core::ops::{Deref, DerefMut};

use vidar_core::mem::addr::Hva;
use vidar_core::svm::vmcb::Page;

/// The VMCB of a virtual CPU, which the CPU reads and writes as well.
#[derive(Debug)]
pub struct Vmcb(*mut Page);

impl Vmcb {
    /// Returns the VMCB at `page`. In a zeroed page nothing is marked as clean.
    ///
    /// # Safety
    /// A page is mapped there for good. Beside the result only the CPU writes to it, and only while the guest runs.
    pub const unsafe fn at(page: Hva) -> Self {
        Self(page.0 as *mut Page)
    }
}

impl Deref for Vmcb {
    type Target = Page;

    fn deref(&self) -> &Page {
        // SAFETY: the caller of `at` has promised that the page is mapped and that only the CPU writes to it, while the
        // guest runs. Nobody holds a reference into the page then.
        unsafe { &*self.0 }
    }
}

impl DerefMut for Vmcb {
    fn deref_mut(&mut self) -> &mut Page {
        // SAFETY: the page is mapped, as in `deref`, and the result is the only reference into it.
        unsafe { &mut *self.0 }
    }
}
