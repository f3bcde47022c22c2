//! Reads the guest's state from the VMCS, for a crash report.

use super::field::*;
use super::guest_state;
use crate::policy::control::Controls;
use crate::vmm::crash::Snapshot;
use crate::x86::registers::Registers;

/// Returns everything that a crash report shows. The caller passes what the VMCS does not hold: the general-purpose
/// registers, the control registers as the guest sees them, and CR2.
pub fn take(vmcs: &impl Fields, registers: &Registers, controls: Controls, cr2: u64) -> Snapshot {
    Snapshot {
        state: guest_state::read(vmcs, registers, controls, cr2),
        vendor: [
            ("exit-reason", vmcs.read(EXIT_REASON).into()),
            ("qualification", vmcs.read(EXIT_QUALIFICATION).0),
            ("instruction-error", vmcs.read(VM_INSTRUCTION_ERROR).into()),
            ("idt-vectoring", vmcs.read(IDT_VECTORING_INFO).into()),
            ("interruptibility", vmcs.read(GUEST_INTERRUPTIBILITY).into()),
            ("activity", vmcs.read(GUEST_ACTIVITY_STATE).into()),
        ],
    }
}
