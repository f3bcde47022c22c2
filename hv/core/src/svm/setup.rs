//! The first contents of a VMCB: the intercepts, and the guest's state.

use super::capabilities::Capabilities;
use super::guest_state;
use super::vmcb::{Clean, Control, NP_ENABLE, Page, Segment, VIRTUAL_INTERRUPT, intercept, tlb_control};
use crate::mem::addr::Hpa;
use crate::mem::pat;
use crate::policy::control::{CR0_CD, CR0_NW};
use crate::vmm::cpu_state::{self, CpuState};

/// The ASID that tags the guest's translations. ASID 0 tags Vidar's own.
const GUEST_ASID: u32 = 1;

/// Writes the control area: the intercepts, and the addresses of the permissions map and of the second stage's root
/// table. NMIs, interrupts and SMIs are not intercepted here, so the guest takes them as on a bare machine.
/// INIT is intercepted only with `init_exits`. AMD APM Vol. 2, 15.17 "Global Interrupt Flag, STGI and CLGI
/// Instructions".
pub fn controls(vmcb: &mut Page, permissions_map: Hpa, root: Hpa, init_exits: bool) {
    let control: &mut Control = vmcb.control_mut(Clean::ALL);
    let init = if init_exits { intercept::INIT } else { 0 };
    control.intercepts[intercept::CONTROL_REGISTERS] = 0;
    control.intercepts[intercept::GENERAL] =
        init | intercept::CPUID | intercept::INVD | intercept::INVLPGA | intercept::MSR | intercept::SHUTDOWN;
    control.intercepts[intercept::MORE] = intercept::SVM | intercept::XSETBV;
    control.msrpm_base_pa = permissions_map.0;
    control.guest_asid = GUEST_ASID;
    control.tlb_control = tlb_control::ALL;
    control.nested_control = NP_ENABLE;
    control.n_cr3 = root.0;
}

/// Makes accesses to I/O ports exit as the map at `map` says.
pub fn watch_ports(vmcb: &mut Page, map: Hpa) {
    let control = vmcb.control_mut(Clean::INTERCEPTS | Clean::PERMISSION_MAPS);
    control.intercepts[intercept::GENERAL] |= intercept::IO;
    control.iopm_base_pa = map.0;
}

/// Has writes of CR0 and CR4 exit if `exit` is true. Writes of CR0 that change TS or MP alone do not.
pub fn watch_controls(vmcb: &mut Page, exit: bool) {
    let intercepts = &mut vmcb.control_mut(Clean::INTERCEPTS).intercepts;
    for (word, bit) in [
        (intercept::CONTROL_REGISTERS, intercept::CR4_WRITE),
        (intercept::GENERAL, intercept::CR0_SELECTIVE_WRITE),
    ] {
        intercepts[word] = intercepts[word] & !bit | if exit { bit } else { 0 };
    }
}

/// Puts the guest into the state after INIT. `state` is that state, as [`CpuState::after_init`] returns it. CR0.CD,
/// CR0.NW and the MSRs stay as they are.
pub fn init(vmcb: &mut Page, state: &CpuState) {
    let cache_bits = vmcb.save().cr0 & (CR0_CD | CR0_NW);
    guest_state::load(vmcb, state);
    vmcb.save_mut(Clean::ALL).cr0 |= cache_bits;
    let control = vmcb.control_mut(Clean::ALL);
    (control.interrupt_shadow, control.eventinj) = (0, 0);
    control.interrupt_control &= !VIRTUAL_INTERRUPT;
}

/// Starts a CPU at the page that the vector of a start-up IPI names. The CPU must be in the state after INIT. AMD APM
/// Vol. 2, 16.5 "Interprocessor Interrupts (IPI)".
pub fn startup(vmcb: &mut Page, vector: u8) {
    let save = vmcb.save_mut(Clean::ALL);
    save.cs = Segment::from(&cpu_state::Segment::started_at(vector));
    save.rip = 0;
}

/// Returns the parts of the VMCB that are clean after an exit: all, or none if the CPU has no clean bits.
pub const fn clean(capabilities: &Capabilities) -> Clean {
    if capabilities.clean_bits { Clean::ALL } else { Clean::empty() }
}

// Vidar's own pages use entry 0 of the PAT, which must be write-back.
const _: () = assert!(pat::HOST_PAT & 0xff == 6);

#[cfg(test)]
mod tests {
    use zerocopy::FromZeros;

    use super::*;

    #[test]
    fn accesses_to_ports_exit_by_the_map() {
        let mut vmcb = Page::new_zeroed();
        controls(&mut vmcb, Hpa(0x1000), Hpa(0x2000), true);
        let before = vmcb.control().intercepts;
        watch_ports(&mut vmcb, Hpa(0x3000));
        // The exit code 7BH.
        let expected = [before[0], before[1], before[2], before[3] | 1 << 0x1b, before[4], before[5]];
        assert_eq!((vmcb.control().intercepts, vmcb.control().iopm_base_pa), (expected, 0x3000));
    }

    #[test]
    fn writes_of_control_registers_exit_while_they_are_watched() {
        let mut vmcb = Page::new_zeroed();
        controls(&mut vmcb, Hpa(0x1000), Hpa(0x2000), true);
        let before = vmcb.control().intercepts;
        assert_eq!(before[0], 0);
        watch_controls(&mut vmcb, true);
        // The exit codes 14H and 65H.
        let expected = [1 << 0x14, before[1], before[2], before[3] | 1 << 5, before[4], before[5]];
        assert_eq!(vmcb.control().intercepts, expected);
        watch_controls(&mut vmcb, false);
        assert_eq!(vmcb.control().intercepts, before);
    }
}
