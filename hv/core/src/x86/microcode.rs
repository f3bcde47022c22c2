//! The MSRs that load an update of the CPU's microcode.

use super::msr::{BIOS_UPDT_TRIG, PATCH_LOADER};

/// An MSR that loads an update.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loader {
    /// IA32_BIOS_UPDT_TRIG of Intel's CPUs. It takes the address of the update's data, which follow a header. Intel SDM
    /// Vol. 3A, 10.11.1 "Microcode Update".
    Intel,
    /// The patch loader of AMD's CPUs. It takes the address of the update's header.
    Amd,
}

impl Loader {
    /// Returns the index of the MSR.
    pub const fn index(self) -> u32 {
        match self {
            Self::Intel => BIOS_UPDT_TRIG,
            Self::Amd => PATCH_LOADER,
        }
    }

    /// Returns the number of bytes by which the update begins below the address that the MSR takes.
    pub const fn header(self) -> u64 {
        match self {
            Self::Intel => 48,
            Self::Amd => 0,
        }
    }
}
