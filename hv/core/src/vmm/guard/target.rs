//! What `guard=data` locks.

use core::ops::Range;

use crate::mem::addr::Gpa;
use crate::mem::locks::Locks;

/// The parts of a kernel's image that are locked, and where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The read-only data.
    pub data: Range<Gpa>,
    /// The interrupt descriptor table.
    pub idt: Range<Gpa>,
    /// The code.
    pub text: Range<Gpa>,
    /// What is added to a physical address in the image to get the kernel's address.
    pub to_image: u64,
}

impl Target {
    /// Returns the locks. The code is locked only to watch it.
    pub fn locks(&self, watch_text: bool) -> Locks {
        let text = if watch_text { self.text.clone() } else { Range::default() };
        Locks::new([self.data.clone(), self.idt.clone()], text)
    }

    /// Returns the address in the kernel's mapping of its image of the byte at `place`.
    pub const fn address_in_image(&self, place: Gpa) -> u64 {
        place.0.wrapping_add(self.to_image)
    }
}
