//! What `guard=data` locks, and the seam to what knows the guest's kernel.

use core::fmt;
use core::ops::Range;

use crate::mem::addr::Gpa;
use crate::mem::locks::Locks;
use crate::mem::ranges::RangeSet;
use crate::mem::walk::ReadGuest;
use crate::vmm::cpu_state::CpuState;

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

/// The kernel of the guest, once it has been found.
pub trait GuestKernel {
    /// Finds the kernel that runs on a CPU in this state, and what is to be locked of it. `None` unless all that the
    /// kernel says agrees with the state and with the guest's RAM.
    fn find(&self, memory: &dyn ReadGuest, ram: &RangeSet, state: &CpuState) -> Option<Target>;

    /// Writes the name of the function at `address` and the distance from its start, or else that it has none.
    fn write_name(&self, memory: &dyn ReadGuest, address: u64, f: &mut fmt::Formatter<'_>) -> fmt::Result;

    /// Fills `addresses` with that of the next instruction of a CPU in this state and those of its callers, the
    /// innermost first. What is left over stays as it is.
    fn chain(&self, memory: &dyn ReadGuest, state: &CpuState, addresses: &mut [u64]);
}
