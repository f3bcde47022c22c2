//! The guest's state out of the VMCS, for a crash report.

use super::field::*;
use super::guest_state;
use crate::policy::control::Controls;
use crate::vmm::crash::Snapshot;
use crate::x86::registers::Registers;

/// Reads everything that a report shows; `cr2` is in the CPU alone.
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
