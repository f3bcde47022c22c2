//! An update of the CPU's microcode, as the core hands it to the shell, which loads it.

use crate::mem::addr::Hpa;
use crate::x86::microcode::Loader;
use crate::x86::msr::Fault;

/// An update to be loaded.
pub struct MicrocodeUpdate<'a> {
    /// The MSR whose write loads it.
    pub loader: Loader,
    /// The offset, in bytes from the start of the first page, of the address that is to be written to the MSR.
    pub offset: u64,
    /// The pages that hold the update, in the order of their linear addresses.
    pub pages: &'a mut dyn Iterator<Item = Hpa>,
}

/// A function that loads an update. It returns [`Fault`] if the CPU cannot read the update or raises #GP.
pub type LoadMicrocode = fn(MicrocodeUpdate<'_>) -> Result<(), Fault>;
