//! The guest's registers in the VMCS: writes them all at the guest's start, and reads them for a crash report. Intel
//! SDM Vol. 3C, 25.4.1 "Guest Register State".

use super::capabilities::Capabilities;
use super::controls::entry;
use super::event::{activity, interruptibility};
use super::field::*;
use crate::policy::control::{CR4_VMXE, Controls};
use crate::vmm::cpu_state::{CpuState, Segment, SegmentRegister, TableRegister};
use crate::x86::msr::EFER_LMA;
use crate::x86::registers::{Register, Registers};

/// Returns the bits of CR0 that the guest does not own: those that VMX operation fixes to 0 or to 1.
pub const fn cr0_mask(capabilities: &Capabilities) -> u64 {
    capabilities.cr0_forced | capabilities.cr0_forbidden
}

/// The bits of CR4 whose value in the CPU is not the value that the guest sees: VMXE is 1 in the CPU.
pub const CR4_SHADOWED: u64 = CR4_VMXE;

/// Returns the bits of CR4 that the guest does not own: those that it may not set. A write that sets one exits.
pub const fn cr4_mask(capabilities: &Capabilities) -> u64 {
    !capabilities.cr4_allowed
}

/// Writes CR0, CR4 and EFER, so that the guest sees those of `controls`, and the entry control "IA-32e mode guest". It
/// cannot change CR0.CD and CR0.NW in the CPU, since VM entry does not load them.
pub fn load_controls(vmcs: &mut impl FieldsMut, capabilities: &Capabilities, controls: &Controls) {
    let cr0 = controls.cr0 & !capabilities.cr0_forbidden | capabilities.cr0_forced;
    vmcs.write(GUEST_CR0, Natural(cr0));
    vmcs.write(CR0_READ_SHADOW, Natural(controls.cr0));
    vmcs.write(GUEST_CR4, Natural(controls.cr4 & !CR4_SHADOWED | CR4_VMXE));
    vmcs.write(CR4_READ_SHADOW, Natural(controls.cr4));
    vmcs.write(GUEST_EFER, controls.efer);
    let ia32e = if controls.efer & EFER_LMA != 0 { entry::IA32E_GUEST } else { 0 };
    vmcs.write(ENTRY_CONTROLS, capabilities.entry | ia32e);
}

/// Writes `state` to the VMCS, except CR2 and the general-purpose registers other than RSP, which the VMCS does not
/// hold. Makes the CPU active, and clears all pending events and all blocking but blocking by NMI, which stays as it
/// is.
pub fn load(vmcs: &mut impl FieldsMut, capabilities: &Capabilities, state: &CpuState) {
    load_controls(vmcs, capabilities, &state.controls);
    vmcs.write(GUEST_CR3, Natural(state.controls.cr3));
    vmcs.write(GUEST_DR7, Natural(state.dr7));
    vmcs.write(GUEST_RSP, Natural(state.registers.get(Register::Rsp)));
    vmcs.write(GUEST_RIP, Natural(state.rip));
    vmcs.write(GUEST_RFLAGS, Natural(state.rflags));
    for (fields, segment) in SEGMENTS.iter().zip(&state.segments) {
        fields.write(vmcs, segment);
    }
    vmcs.write(GUEST_GDTR_BASE, Natural(state.gdtr.base));
    vmcs.write(GUEST_GDTR_LIMIT, state.gdtr.limit.into());
    vmcs.write(GUEST_IDTR_BASE, Natural(state.idtr.base));
    vmcs.write(GUEST_IDTR_LIMIT, state.idtr.limit.into());
    vmcs.write(GUEST_ACTIVITY_STATE, activity::ACTIVE);
    let blocked = vmcs.read(GUEST_INTERRUPTIBILITY) & interruptibility::NMI;
    vmcs.write(GUEST_INTERRUPTIBILITY, blocked);
    vmcs.write(GUEST_PENDING_DEBUG, Natural(0));
    vmcs.write(ENTRY_INTERRUPTION_INFO, 0);
}

/// Reads the guest's state from the VMCS. The caller passes what the VMCS does not hold: `registers`, of which RSP is
/// not used, and `cr2`. It also passes `controls`, as the guest sees them.
pub fn read(vmcs: &impl Fields, registers: &Registers, controls: Controls, cr2: u64) -> CpuState {
    let mut registers = *registers;
    registers.set(Register::Rsp, vmcs.read(GUEST_RSP).0);
    let table = |base: Field<Natural>, limit: Field<u32>| TableRegister {
        base: vmcs.read(base).0,
        limit: vmcs.read(limit) as u16,
    };
    let mut segments = [Segment::default(); 8];
    segments.iter_mut().zip(&SEGMENTS).for_each(|(segment, fields)| *segment = fields.read(vmcs));
    CpuState {
        registers,
        rip: vmcs.read(GUEST_RIP).0,
        rflags: vmcs.read(GUEST_RFLAGS).0,
        controls,
        cr2,
        dr7: vmcs.read(GUEST_DR7).0,
        segments,
        gdtr: table(GUEST_GDTR_BASE, GUEST_GDTR_LIMIT),
        idtr: table(GUEST_IDTR_BASE, GUEST_IDTR_LIMIT),
    }
}

/// The fields of one segment register.
#[derive(Debug)]
pub struct SegmentFields {
    pub(super) selector: Field<u16>,
    pub(super) base: Field<Natural>,
    pub(super) limit: Field<u32>,
    pub(super) rights: Field<u32>,
}

impl SegmentFields {
    /// Writes `segment` to the four fields.
    pub fn write(&self, vmcs: &mut impl FieldsMut, segment: &Segment) {
        vmcs.write(self.selector, segment.selector);
        vmcs.write(self.base, Natural(segment.base));
        vmcs.write(self.limit, segment.limit);
        vmcs.write(self.rights, segment.rights);
    }

    /// Returns the segment that the four fields hold.
    pub fn read(&self, vmcs: &impl Fields) -> Segment {
        Segment {
            selector: vmcs.read(self.selector),
            base: vmcs.read(self.base).0,
            limit: vmcs.read(self.limit),
            rights: vmcs.read(self.rights),
        }
    }
}

macro_rules! segments {
    ($($selector:ident $base:ident $limit:ident $rights:ident),* $(,)?) => {
        [$(SegmentFields { selector: $selector, base: $base, limit: $limit, rights: $rights }),*]
    };
}

/// The fields of the segment registers, indexed by [`SegmentRegister`].
static SEGMENTS: [SegmentFields; 8] = segments![
    GUEST_CS_SELECTOR GUEST_CS_BASE GUEST_CS_LIMIT GUEST_CS_RIGHTS,
    GUEST_SS_SELECTOR GUEST_SS_BASE GUEST_SS_LIMIT GUEST_SS_RIGHTS,
    GUEST_DS_SELECTOR GUEST_DS_BASE GUEST_DS_LIMIT GUEST_DS_RIGHTS,
    GUEST_ES_SELECTOR GUEST_ES_BASE GUEST_ES_LIMIT GUEST_ES_RIGHTS,
    GUEST_FS_SELECTOR GUEST_FS_BASE GUEST_FS_LIMIT GUEST_FS_RIGHTS,
    GUEST_GS_SELECTOR GUEST_GS_BASE GUEST_GS_LIMIT GUEST_GS_RIGHTS,
    GUEST_TR_SELECTOR GUEST_TR_BASE GUEST_TR_LIMIT GUEST_TR_RIGHTS,
    GUEST_LDTR_SELECTOR GUEST_LDTR_BASE GUEST_LDTR_LIMIT GUEST_LDTR_RIGHTS,
];

/// Returns the fields of `register`.
pub const fn fields(register: SegmentRegister) -> &'static SegmentFields {
    &SEGMENTS[register as usize]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::control::{CR0_ET, CR0_NE, CR0_PE};
    use crate::vmm::cpu_state::rights;
    use crate::vmx::fake::{FakeVmcs, capabilities};

    #[test]
    fn a_state_that_was_loaded_reads_back() {
        let mut vmcs = FakeVmcs::default();
        let mut state = CpuState::after_init(0x506e3);
        state.registers.set(Register::Rsp, 0x7000);
        load(&mut vmcs, &capabilities(), &state);
        assert_eq!(read(&vmcs, &state.registers, state.controls, 0), state);
        assert_eq!(fields(SegmentRegister::Tr).read(&vmcs).rights, rights::BUSY_TSS);
    }

    #[test]
    fn the_guest_does_not_see_bits_that_vmx_operation_fixes() {
        let mut vmcs = FakeVmcs::default();
        let controls = Controls { cr0: CR0_PE | CR0_ET, cr4: 0x20, efer: EFER_LMA, ..Controls::default() };
        load_controls(&mut vmcs, &capabilities(), &controls);
        assert_eq!(vmcs.read(GUEST_CR0).0, CR0_PE | CR0_ET | CR0_NE);
        assert_eq!(vmcs.read(CR0_READ_SHADOW).0, CR0_PE | CR0_ET);
        assert_eq!((vmcs.read(GUEST_CR4).0, vmcs.read(CR4_READ_SHADOW).0), (0x20 | CR4_VMXE, 0x20));
        assert_ne!(vmcs.read(ENTRY_CONTROLS) & entry::IA32E_GUEST, 0);
        load_controls(&mut vmcs, &capabilities(), &Controls { efer: 0, ..controls });
        assert_eq!(vmcs.read(ENTRY_CONTROLS) & entry::IA32E_GUEST, 0);
    }

    #[test]
    fn loading_keeps_blocking_by_nmi_alone() {
        let mut vmcs = FakeVmcs::default();
        vmcs.write(GUEST_INTERRUPTIBILITY, interruptibility::NMI | interruptibility::STI);
        vmcs.write(GUEST_PENDING_DEBUG, Natural(1 << 14));
        vmcs.write(ENTRY_INTERRUPTION_INFO, 1 << 31);
        load(&mut vmcs, &capabilities(), &CpuState::after_init(0));
        assert_eq!(vmcs.read(GUEST_INTERRUPTIBILITY), interruptibility::NMI);
        assert_eq!((vmcs.read(GUEST_PENDING_DEBUG).0, vmcs.read(ENTRY_INTERRUPTION_INFO)), (0, 0));
    }
}
