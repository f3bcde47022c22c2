//! The MSRs that load an update of the CPU's microcode. The guest writes the update's linear address. Reads raise #GP
//! in the CPU. The rows are in the tables of the extensions.

use super::row::{Effect, Read, Row, Write};
use crate::x86::msr::{BIOS_UPDT_TRIG, PATCH_LOADER};

/// The MSR of Intel's CPUs. It takes the address of the update's data, which follow a header of 48 bytes. Intel SDM
/// Vol. 3A, 10.11.1 "Microcode Update".
pub const INTEL: Row = Row::new(
    &[BIOS_UPDT_TRIG..=BIOS_UPDT_TRIG],
    Read::Native,
    Write::Handled(|address, _| Ok(Effect::LoadMicrocode { address, header: 48 })),
);

/// The MSR of AMD's CPUs. It takes the address of the update's header.
pub const AMD: Row = Row::new(
    &[PATCH_LOADER..=PATCH_LOADER],
    Read::Native,
    Write::Handled(|address, _| Ok(Effect::LoadMicrocode { address, header: 0 })),
);
