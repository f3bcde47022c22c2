//! A row of a table: some MSRs, and what becomes of reads and writes of them.

use core::ops::RangeInclusive;

use super::context::Context;
use crate::policy::control::Controls;
use crate::x86::msr::Fault;

/// What becomes of a read.
#[derive(Debug, Clone, Copy)]
pub enum Read {
    /// The CPU answers. There is no exit if the bitmap covers the MSR.
    Native,
    /// #GP, as on a CPU that lacks the MSR.
    Refuse,
    /// The CPU answers, but these bits read 0.
    Without(u64),
    /// The handler gives the value, or #GP.
    Handled(fn(&mut dyn Context) -> Result<u64, Fault>),
}

impl Read {
    /// Returns true if the read has to exit.
    pub const fn exits(&self) -> bool {
        !matches!(self, Self::Native)
    }
}

/// What becomes of a write.
#[derive(Debug, Clone, Copy)]
pub enum Write {
    /// The CPU takes it. There is no exit if the bitmap covers the MSR.
    Native,
    /// #GP.
    Refuse,
    /// #GP if the CPU lacks the MSR. Otherwise nothing: what firmware has set up stays.
    Keep,
    /// #GP if one of these bits is set. Otherwise the CPU takes it.
    Without(u64),
    /// The handler decides.
    Handled(WriteHandler),
    /// The handler decides while the backend watches the MSR; see [`Effect::DisableExecute`]. Otherwise the CPU takes the write
    /// without an exit.
    HandledIfWatched(WriteHandler),
}

impl Write {
    /// Returns true if the write has to exit. `watched` says that the backend watches MSRs such as EFER.
    pub const fn exits(&self, watched: bool) -> bool {
        match self {
            Self::Native => false,
            Self::HandledIfWatched(_) => watched,
            _ => true,
        }
    }
}

/// Decides what becomes of a write of this value. An error is a #GP.
pub type WriteHandler = fn(u64, &mut dyn Context) -> Result<Effect, Fault>;

/// What is to be done about a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Nothing.
    Nothing,
    /// The CPU takes this value for the MSR.
    Write(u64),
    /// The CPU takes this value for the MSR, an MTRR, and the second stage follows.
    WriteMtrr(u64),
    /// The control registers become these.
    SetControls(Controls),
    /// The CPU takes `value` for the MSR. From then on no-execute is disabled for the guest or not, and EFER is watched while it
    /// is.
    DisableExecute {
        /// The value for the CPU.
        value: u64,
        /// True if no-execute is disabled.
        disabled: bool,
    },
    /// A message of the local APIC in x2APIC mode.
    SendIcr(u64),
    /// An update of the CPU's microcode.
    LoadMicrocode {
        /// The linear address that the guest has written.
        address: u64,
        /// The update begins this number of bytes below the address.
        header: u64,
    },
}

/// One row of a table: some MSRs, and what becomes of reads and writes of them.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// The MSRs.
    pub indices: &'static [RangeInclusive<u32>],
    /// Reads.
    pub read: Read,
    /// Writes.
    pub write: Write,
}

impl Row {
    /// A row for MSRs that are read and written in this way.
    pub const fn new(indices: &'static [RangeInclusive<u32>], read: Read, write: Write) -> Self {
        Self { indices, read, write }
    }

    /// Returns true if the row has the MSR `index`.
    pub fn contains(&self, index: u32) -> bool {
        self.indices.iter().any(|range| range.contains(&index))
    }
}

/// What becomes of reads and writes of the MSR `index`, by the first row of `tables` that has it.
pub fn policy(tables: &[&[Row]], index: u32) -> (Read, Write) {
    tables
        .iter()
        .copied()
        .flatten()
        .find(|row| row.contains(index))
        .map_or((Read::Native, Write::Native), |row| (row.read, row.write))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_access_exits_if_its_handler_is_asked() {
        assert!(Read::Handled(|_| Ok(0)).exits());
        assert!(Write::Handled(|_, _| Ok(Effect::Nothing)).exits(false));
        let watched = Write::HandledIfWatched(|_, _| Ok(Effect::Nothing));
        assert_eq!([false, true].map(|on| watched.exits(on)), [false, true]);
        assert!(!Read::Native.exits() && !Write::Native.exits(true));
    }
}
