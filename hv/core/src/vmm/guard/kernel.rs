//! The seam to what knows the guest's kernel: the virtual machine itself knows nothing of Linux.

use core::fmt;

use super::target::Target;
use crate::mem::ranges::RangeSet;
use crate::mem::walk::ReadGuest;
use crate::policy::control::Controls;
use crate::vmm::cpu_state::CpuState;

/// The guest's memory, as far as a kernel is looked for in it.
#[derive(Clone, Copy)]
pub struct Guest<'a> {
    /// Reads it.
    pub memory: &'a dyn ReadGuest,
    /// The RAM of the guest.
    pub ram: &'a RangeSet,
}

/// Knows the kernel that the guest runs, once it has been found.
pub trait GuestKernel {
    /// Finds the kernel that runs on a CPU in this state, and what is to be locked of it. `None` unless all that the
    /// kernel says agrees with the state and with the guest's RAM.
    fn find(&self, guest: Guest<'_>, state: &CpuState) -> Option<Target>;

    /// Looks for the kernel that runs on a CPU with these control registers, for the questions that follow. This may
    /// take long.
    fn prepare(&self, guest: Guest<'_>, controls: &Controls);

    /// Writes the name of the function at `address`, in the kernel that runs on a CPU with these control registers, and
    /// the distance from its start. Returns `None`, and has written nothing, if it has no name.
    fn write_name(
        &self,
        guest: Guest<'_>,
        controls: &Controls,
        address: u64,
        f: &mut fmt::Formatter<'_>,
    ) -> Option<fmt::Result>;

    /// Fills `addresses` with that of the next instruction of a CPU in this state and those of its callers, the
    /// innermost first. What is left over stays as it is.
    fn chain(&self, guest: Guest<'_>, state: &CpuState, addresses: &mut [u64]);
}
