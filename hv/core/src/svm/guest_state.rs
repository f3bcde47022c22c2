//! The guest's registers in the VMCB: writes them all at the guest's start, and reads them for a crash report.

use super::vmcb::{Clean, Page, Segment};
use crate::policy::control::Controls;
use crate::vmm::cpu_state::{self, CpuState, SegmentRegister, TableRegister};
use crate::x86::msr::EFER_SVME;
use crate::x86::registers::{Register, Registers};

/// DR6 after INIT.
const DR6_RESET: u64 = 0xffff_0ff0;

/// Writes `state` to the state-save area, except the general-purpose registers other than RSP, which the entry assembly
/// loads. Resets DR6 and the CET state as INIT does.
#[cold]
#[inline(never)] // INIT and the start both use it
pub fn load(vmcb: &mut Page, state: &CpuState) {
    let save = vmcb.save_mut(Clean::ALL);
    let Controls { cr0, cr3, cr4, efer, .. } = state.controls;
    (save.cr0, save.cr2, save.cr3, save.cr4) = (cr0, state.cr2, cr3, cr4);
    save.efer = efer | EFER_SVME;
    (save.dr6, save.dr7) = (DR6_RESET, state.dr7);
    (save.rip, save.rflags) = (state.rip, state.rflags);
    (save.rsp, save.rax) = (state.registers.get(Register::Rsp), 0);
    (save.s_cet, save.ssp, save.isst_addr) = (0, 0, 0);
    // The current privilege level is the DPL of SS, bits 6:5 of the access rights.
    save.cpl = (state[SegmentRegister::Ss].rights >> 5 & 3) as u8;
    let [cs, ss, ds, es, fs, gs, tr, ldtr] = state.segments.each_ref().map(Segment::from);
    (save.cs, save.ss, save.ds, save.es) = (cs, ss, ds, es);
    (save.fs, save.gs, save.tr, save.ldtr) = (fs, gs, tr, ldtr);
    let table = |register: TableRegister| Segment {
        base: register.base,
        limit: register.limit.into(),
        ..Segment::default()
    };
    (save.gdtr, save.idtr) = (table(state.gdtr), table(state.idtr));
}

/// Reads the guest's state from the VMCB. The caller passes the general-purpose registers, of which RSP is not used,
/// and `controls`, as the guest sees them.
#[cold]
pub fn read(vmcb: &Page, registers: &Registers, controls: Controls) -> CpuState {
    let save = vmcb.save();
    let mut registers = *registers;
    registers.set(Register::Rsp, save.rsp);
    let table = |register: Segment| TableRegister { base: register.base, limit: register.limit as u16 };
    CpuState {
        registers,
        rip: save.rip,
        rflags: save.rflags,
        controls,
        cr2: save.cr2,
        dr7: save.dr7,
        segments: [save.cs, save.ss, save.ds, save.es, save.fs, save.gs, save.tr, save.ldtr]
            .map(cpu_state::Segment::from),
        gdtr: table(save.gdtr),
        idtr: table(save.idtr),
    }
}

/// The attributes of a VMCB segment are bits 15:12 and 7:0 of the access rights, without the gap between them. An
/// unusable segment becomes one that is not present.
impl From<&cpu_state::Segment> for Segment {
    fn from(segment: &cpu_state::Segment) -> Self {
        let cpu_state::Segment { selector, base, limit, rights } = *segment;
        Self { selector, attributes: (rights & 0xff | rights >> 4 & 0xf00) as u16, limit, base }
    }
}

impl From<Segment> for cpu_state::Segment {
    fn from(segment: Segment) -> Self {
        let attributes = u32::from(segment.attributes);
        let rights = attributes & 0xff | (attributes & 0xf00) << 4;
        Self { selector: segment.selector, base: segment.base, limit: segment.limit, rights }
    }
}

#[cfg(test)]
mod tests {
    use zerocopy::FromZeros;

    use super::*;
    use crate::vmm::cpu_state::rights;

    #[test]
    fn attributes_are_rights_without_their_gap() {
        for (rights, attributes) in [
            (rights::FLAT_CODE, 0xc9b),
            (rights::FLAT_DATA, 0xc93),
            (rights::BUSY_TSS, 0x8b),
            (rights::UNUSABLE, 0),
        ] {
            let segment = cpu_state::Segment { rights, ..cpu_state::Segment::default() };
            assert_eq!(Segment::from(&segment).attributes, attributes);
        }
    }

    #[test]
    fn a_state_that_was_loaded_reads_back() {
        let mut vmcb = Page::new_zeroed();
        let mut state = CpuState::after_init(0);
        state.registers.set(Register::Rsp, 0x7000);
        state.controls.efer = 1;
        load(&mut vmcb, &state);
        assert_eq!(vmcb.save().efer, 1 | EFER_SVME);
        assert_eq!(read(&vmcb, &state.registers, state.controls), state);
    }
}
