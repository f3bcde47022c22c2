//! An update of the CPU's microcode, as it is handed to what loads it.

use crate::mem::addr::Hpa;
use crate::x86::msr::Fault;

/// An update, as it is to be loaded.
pub struct Update<'a> {
    /// Number of the CPU.
    pub cpu: u32,
    /// The MSR that loads it.
    pub msr: u32,
    /// Where the address that the MSR takes is, in bytes from the start of the first page.
    pub offset: u64,
    /// The pages.
    pub pages: &'a mut dyn Iterator<Item = Hpa>,
}

/// Loads an update.
pub type Load = fn(Update<'_>) -> Result<(), Fault>;
