//! A row of a table: some MSRs, and the rules for reads and writes of them.

use core::ops::RangeInclusive;

use super::context::Context;
use crate::policy::control::Controls;
use crate::x86::microcode::Loader;
use crate::x86::msr::Fault;

/// The rule for reads of an MSR.
#[derive(Debug, Clone, Copy)]
pub enum Read {
    /// The read returns the CPU's value. There is no exit if the bitmap covers the MSR.
    Native,
    /// The read raises #GP, as on a CPU that lacks the MSR.
    Refuse,
    /// The read returns the CPU's value with these bits clear.
    Without(u64),
    /// The handler returns the value, or [`Fault`] for #GP.
    Handled(fn(&mut dyn Context) -> Result<u64, Fault>),
}

impl Read {
    /// Returns true if reads must exit.
    pub const fn exits(&self) -> bool {
        !matches!(self, Self::Native)
    }
}

/// The rule for writes of an MSR.
#[derive(Debug, Clone, Copy)]
pub enum Write {
    /// The value is written to the CPU. There is no exit if the bitmap covers the MSR.
    Native,
    /// The write raises #GP.
    Refuse,
    /// The write has no effect, so that the value of firmware stays. It raises #GP if the CPU lacks the MSR.
    Keep,
    /// The write raises #GP if one of these bits is set. Otherwise the value is written to the CPU.
    Without(u64),
    /// The handler decides.
    Handled(WriteHandler),
    /// The handler decides while the extension watches the MSR; see [`Effect::DisableExecute`]. Otherwise the value is
    /// written to the CPU without an exit.
    HandledIfWatched(WriteHandler),
}

impl Write {
    /// Returns true if writes must exit. `watched` is true while the extension watches the MSRs of
    /// [`Write::HandledIfWatched`].
    pub const fn exits(&self, watched: bool) -> bool {
        match self {
            Self::Native => false,
            Self::HandledIfWatched(_) => watched,
            _ => true,
        }
    }
}

/// A function that decides about a write of a value. It returns [`Fault`] if the write raises #GP.
pub type WriteHandler = fn(u64, &mut dyn Context) -> Result<Effect, Fault>;

/// The effect of a write. `W` is a write to the CPU: to handlers a value for the MSR that the guest has named, and
/// after the decision an [`AllowedMsrWrite`](super::allowed::AllowedMsrWrite).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect<W = u64> {
    /// The write has no effect.
    Nothing,
    /// This value is written to the MSR.
    Write(W),
    /// This value is written to the MSR, which is an MTRR, and the memory types of the second stage follow.
    WriteMtrr(W),
    /// This value is written to the MSR, unless the guard refuses it.
    WriteGuarded(W),
    /// The guest's control registers are set to these.
    SetControls(Controls),
    /// `value` is written to the MSR, and no-execute pages are disabled or enabled for the guest. Writes of EFER are
    /// watched while they are disabled.
    DisableExecute {
        /// The value for the CPU.
        value: W,
        /// True if no-execute pages are disabled.
        disabled: bool,
    },
    /// This value is a write to the interrupt command register in x2APIC mode.
    SendIcr(W),
    /// An update of the CPU's microcode is loaded.
    LoadMicrocode {
        /// The linear address that the guest has written.
        address: u64,
        /// The MSR that loads it.
        loader: Loader,
    },
}

impl Effect {
    /// Replaces the value that is written to the CPU, if there is one, by what `allow` returns for it.
    ///
    /// # Errors
    /// Returns [`Fault`] if `allow` does.
    pub(super) fn allow<W>(self, allow: impl FnOnce(u64) -> Result<W, Fault>) -> Result<Effect<W>, Fault> {
        Ok(match self {
            Self::Nothing => Effect::Nothing,
            Self::Write(value) => Effect::Write(allow(value)?),
            Self::WriteMtrr(value) => Effect::WriteMtrr(allow(value)?),
            Self::WriteGuarded(value) => Effect::WriteGuarded(allow(value)?),
            Self::SetControls(controls) => Effect::SetControls(controls),
            Self::DisableExecute { value, disabled } => {
                Effect::DisableExecute { value: allow(value)?, disabled }
            }
            Self::SendIcr(value) => Effect::SendIcr(allow(value)?),
            Self::LoadMicrocode { address, loader } => Effect::LoadMicrocode { address, loader },
        })
    }
}

/// A row of a table: some MSRs, and the rules for reads and writes of them.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// The ranges of the MSRs' indices.
    pub indices: &'static [RangeInclusive<u32>],
    /// The rule for reads.
    pub read: Read,
    /// The rule for writes.
    pub write: Write,
}

impl Row {
    /// Returns a row with these MSRs and rules.
    pub const fn new(indices: &'static [RangeInclusive<u32>], read: Read, write: Write) -> Self {
        Self { indices, read, write }
    }

    /// Returns true if the row has the MSR `index`.
    pub fn contains(&self, index: u32) -> bool {
        self.indices.iter().any(|range| range.contains(&index))
    }
}

/// Returns the rules for the MSR `index`: those of the first row of `tables` that has it, or `Native` for both if none
/// has it.
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
    fn an_access_with_a_handler_exits() {
        assert!(Read::Handled(|_| Ok(0)).exits());
        assert!(Write::Handled(|_, _| Ok(Effect::Nothing)).exits(false));
        let watched = Write::HandledIfWatched(|_, _| Ok(Effect::Nothing));
        assert_eq!([false, true].map(|on| watched.exits(on)), [false, true]);
        assert!(!Read::Native.exits() && !Write::Native.exits(true));
    }
}
