//! Finds the rules of VM entry that the current VMCS breaks.

use vidar_core::vmm::rules::Broken;
use vidar_core::vmx::rules;
use vidar_core::vmx::rules::facts::Facts;
use vidar_core::vmx::rules::state::State;

use super::enable::{read_capabilities, read_or_0};
use super::vmcs::Vmcs;
use crate::arch::cpuid;

/// Calls `found` with each rule that the current VMCS breaks.
#[cold]
pub fn broken(vmcs: &Vmcs, found: &mut dyn FnMut(&Broken<'_>)) {
    // Vidar's VMCSs link to no other, so the address of the current one does not matter, and no rule reads memory.
    rules::broken(&rules::OWN, &State::new(vmcs, &|_| None, &facts()), found);
}

/// Returns what the rules must know of this CPU.
pub fn facts() -> Facts {
    let facts = Facts {
        capabilities: read_capabilities(),
        functions: read_or_0(0x491),
        tertiary: read_or_0(0x492),
        secondary_exit: read_or_0(0x493),
        address_bits: cpuid::physical_address_bits(),
        ia32e: true,
        ..Facts::default()
    };
    facts.with_cpuid(cpuid::cpuid)
}
