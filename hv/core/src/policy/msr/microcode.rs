//! The MSRs that load an update of the CPU's microcode. The guest writes the update's linear address. Reading them is #GP by
//! itself. The rows are for the tables of the backends.

use super::row::{Effect, Read, Row, Write};
use crate::x86::msr::{BIOS_UPDT_TRIG, PATCH_LOADER};

/// Intel's. The address is that of the data, after a header of 48 bytes. Intel SDM Vol. 3A, 10.11.1 "Microcode Update".
pub const INTEL: Row = Row::new(
    &[BIOS_UPDT_TRIG..=BIOS_UPDT_TRIG],
    Read::Native,
    Write::Handled(|address, _| Ok(Effect::LoadMicrocode { address, header: 48 })),
);

/// AMD's. The address is that of the header.
pub const AMD: Row = Row::new(
    &[PATCH_LOADER..=PATCH_LOADER],
    Read::Native,
    Write::Handled(|address, _| Ok(Effect::LoadMicrocode { address, header: 0 })),
);
