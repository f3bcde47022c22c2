//! What the handlers of MSRs can read of the CPU and the machine.

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
    /// Returns [`Fault`] if the CPU raises #GP.
    fn native(&mut self) -> Result<u64, Fault>;

    /// Executes CPUID.
    fn cpuid(&self, leaf: u32, subleaf: u32) -> Leaf;

    /// Returns the control registers as the guest sees them.
    fn controls(&self) -> Controls;

    /// Returns the bits of EFER that the guest may set.
    fn efer_allowed(&self) -> u64;

    /// Returns true if the guest has disabled no-execute pages.
    fn execute_is_disabled(&self) -> bool;

    /// Returns the local APIC's page if the guest's writes to it are watched.
    fn watched_apic(&self) -> Option<Gpa>;

    /// Returns true if the guest may not place a device at these addresses.
    fn keeps(&self, range: &Range<Hpa>) -> bool;
}

/// A context for the tests of handlers, which returns the values of its fields.
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
