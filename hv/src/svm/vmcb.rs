//! The VMCB of a virtual CPU, where the CPU finds it.

#![expect(unsafe_code, reason = "the CPU writes the page as well, so it is reached through a pointer")]

use core::ops::{Deref, DerefMut};

use vidar_core::mem::addr::Hva;
use vidar_core::svm::vmcb::Page;

/// The VMCB of a virtual CPU.
#[derive(Debug)]
pub struct Vmcb(*mut Page);

impl Vmcb {
    /// The VMCB at `page`. A zeroed page says that nothing in it is clean.
    ///
    /// # Safety
    /// A page is there for ever, and only the CPU writes it beside the result, and only while the guest is entered.
    pub const unsafe fn at(page: Hva) -> Self {
        Self(page.0 as *mut Page)
    }
}

impl Deref for Vmcb {
    type Target = Page;

    fn deref(&self) -> &Page {
        // SAFETY: the promise of `at`; whoever enters the guest has no reference into the page.
        unsafe { &*self.0 }
    }
}

impl DerefMut for Vmcb {
    fn deref_mut(&mut self) -> &mut Page {
        // SAFETY: as above.
        unsafe { &mut *self.0 }
    }
}
