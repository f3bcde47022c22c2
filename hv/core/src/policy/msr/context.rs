//! What the handlers of MSRs may ask.

use core::ops::Range;

use crate::mem::addr::{Gpa, Hpa};
use crate::policy::control::Controls;
use crate::x86::cpuid::Leaf;
use crate::x86::msr::Fault;

/// The CPU and the machine, as a handler sees them.
pub trait Context {
    /// Reads the MSR that the guest accesses.
    ///
    /// # Errors
    /// [`Fault`] if the CPU gives #GP.
    fn native(&mut self) -> Result<u64, Fault>;

    /// Executes CPUID.
    fn cpuid(&self, leaf: u32, subleaf: u32) -> Leaf;

    /// The guest's control registers.
    fn controls(&self) -> Controls;

    /// Bits of EFER that the guest may set.
    fn efer_allowed(&self) -> u64;

    /// Returns true if the guest has disabled no-execute.
    fn execute_is_disabled(&self) -> bool;

    /// The local APIC's page, if the guest's writes to it are watched.
    fn watched_apic(&self) -> Option<Gpa>;

    /// Returns true if no device may be laid over these addresses.
    fn keeps(&self, range: &Range<Hpa>) -> bool;
}

/// A context for the tests of handlers: its fields are the answers.
#[cfg(test)]
#[derive(Default)]
pub(crate) struct Fixed {
    pub native: Option<u64>,
    pub leaf: Leaf,
    pub controls: Controls,
    pub efer_allowed: u64,
    pub execute_is_disabled: bool,
    pub watched_apic: Option<Gpa>,
    pub kept: Option<Range<Hpa>>,
}

#[cfg(test)]
impl Context for Fixed {
    fn native(&mut self) -> Result<u64, Fault> {
        self.native.ok_or(Fault)
    }

    fn cpuid(&self, _: u32, _: u32) -> Leaf {
        self.leaf
    }

    fn controls(&self) -> Controls {
        self.controls
    }

    fn efer_allowed(&self) -> u64 {
        self.efer_allowed
    }

    fn execute_is_disabled(&self) -> bool {
        self.execute_is_disabled
    }

    fn watched_apic(&self) -> Option<Gpa> {
        self.watched_apic
    }

    fn keeps(&self, range: &Range<Hpa>) -> bool {
        self.kept.as_ref().is_some_and(|kept| crate::mem::addr::overlaps(range, kept))
    }
}
