//! The guest's state out of the VMCS, for a crash report.

use x86_64::registers::control::Cr2;

use super::exit::Fields;
use super::field::*;
use super::setup::SEGMENTS;
use super::vmcs::Vmcs;
use crate::vmm::control::Controls;
use crate::vmm::crash::{Segment, Snapshot};
use crate::vmm::registers::Registers;

/// Reads everything that a report shows.
pub fn take(vmcs: &Vmcs, registers: &Registers, controls: Controls) -> Snapshot {
    let mut segments = [Segment::default(); 8];
    for (segment, fields) in segments.iter_mut().zip(&SEGMENTS) {
        *segment = fields.read(vmcs);
    }
    Snapshot {
        registers: *registers,
        rip: vmcs.read(GUEST_RIP).0,
        rsp: vmcs.read(GUEST_RSP).0,
        rflags: vmcs.read(GUEST_RFLAGS).0,
        cr2: Cr2::read_raw(),
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
