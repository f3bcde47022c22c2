//! The page-attribute table of this CPU.

#![expect(unsafe_code, reason = "the MSR is written here")]

use vidar_core::mem::pat::{HOST_PAT, serves};

use super::msr;

/// Loads [`HOST_PAT`] into the PAT of this CPU. Returns the previous value, with which the guest is to begin.
pub fn load() -> u64 {
    let found = msr::read(msr::PAT);
    // SAFETY: all mappings so far use the first four entries of the PAT, for which `HOST_PAT` has the values after
    // reset.
    unsafe { msr::write(msr::PAT, HOST_PAT) };
    found
}

/// Loads the guest's PAT into this CPU, if Vidar's mappings work with it. This is for a hypervisor below Vidar that
/// applies Vidar's PAT to Vidar's guest, as KVM does on AMD-V.
pub fn lend(guest: u64) {
    if serves(guest) {
        // SAFETY: `serves` has checked that Vidar's mappings keep their memory types, and the CPU has had this value
        // before.
        unsafe { msr::write(msr::PAT, guest) };
    }
}
