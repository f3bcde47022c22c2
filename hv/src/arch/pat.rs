//! The page-attribute table of this CPU.

#![expect(unsafe_code, reason = "the MSR is written here")]

use vidar_core::mem::pat::{HOST_PAT, serves};

use super::msr;

/// Makes [`HOST_PAT`] the PAT of this CPU. Returns the one that it had, which is the guest's.
pub fn load() -> u64 {
    let found = msr::read(msr::PAT);
    // SAFETY: all that is mapped so far uses the first four types, and they do not change.
    unsafe { msr::write(msr::PAT, HOST_PAT) };
    found
}

/// Makes the guest's PAT this CPU's, if Vidar can run with it: for a hypervisor below that gives Vidar's guest the PAT of
/// Vidar, as KVM does on AMD-V.
pub fn lend(guest: u64) {
    if serves(guest) {
        // SAFETY: what Vidar has mapped means the same, and the CPU has held this value before.
        unsafe { msr::write(msr::PAT, guest) };
    }
}
