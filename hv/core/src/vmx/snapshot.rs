//! The guest's state out of the VMCS, for a crash report.

use super::field::*;
use super::setup::SEGMENTS;
use crate::policy::control::Controls;
use crate::vmm::crash::{Segment, Snapshot};
use crate::x86::registers::Registers;

/// Reads everything that a report shows; `cr2` is in the CPU alone.
pub fn take(vmcs: &impl Fields, registers: &Registers, controls: Controls, cr2: u64) -> Snapshot {
    let mut segments = [Segment::default(); 8];
    for (segment, fields) in segments.iter_mut().zip(&SEGMENTS) {
        *segment = fields.read(vmcs);
    }
    Snapshot {
        registers: *registers,
        rip: vmcs.read(GUEST_RIP).0,
        rsp: vmcs.read(GUEST_RSP).0,
        rflags: vmcs.read(GUEST_RFLAGS).0,
        cr2,
        controls,
        segments,
        gdtr: (vmcs.read(GUEST_GDTR_BASE).0, vmcs.read(GUEST_GDTR_LIMIT)),
        idtr: (vmcs.read(GUEST_IDTR_BASE).0, vmcs.read(GUEST_IDTR_LIMIT)),
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
