//! The MSRs that load an update of the CPU's microcode. The guest writes the update's linear address. Reads raise #GP
//! in the CPU. The rows are in the tables of the extensions.

use super::row::{Effect, Read, Row, Write};
use crate::x86::microcode::Loader;
use crate::x86::msr::{BIOS_UPDT_TRIG, PATCH_LOADER};

/// The row with the MSR of Intel's CPUs.
pub const INTEL: Row = Row::new(
    &[BIOS_UPDT_TRIG..=BIOS_UPDT_TRIG],
    Read::Native,
    Write::Handled(|address, _| Ok(Effect::LoadMicrocode { address, loader: Loader::Intel })),
);

/// The row with the MSR of AMD's CPUs.
pub const AMD: Row = Row::new(
    &[PATCH_LOADER..=PATCH_LOADER],
    Read::Native,
    Write::Handled(|address, _| Ok(Effect::LoadMicrocode { address, loader: Loader::Amd })),
);
