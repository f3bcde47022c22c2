//! The first contents of a VMCB: what exits, and the guest's state.

use super::capabilities::Capabilities;
use super::guest_state;
use super::vmcb::{Clean, Control, NP_ENABLE, Page, Segment, intercept, tlb_control};
use crate::mem::addr::Hpa;
use crate::mem::pat;
use crate::policy::control::{CR0_CD, CR0_NW};
use crate::vmm::cpu_state::{self, CpuState};

/// The ASID of the guest's translations; 0 is Vidar's own.
const GUEST_ASID: u32 = 1;

/// What exits and where the guest's memory is. NMIs and interrupts are not among it, nor are SMIs: they find the guest
/// as they would find the bare machine's system. Without `init_exits` the same holds for INIT: AMD APM Vol. 2, 15.17
/// "Global Interrupt Flag, STGI and CLGI Instructions".
pub fn controls(vmcb: &mut Page, permissions_map: Hpa, root: Hpa, init_exits: bool) {
    let control: &mut Control = vmcb.control_mut(Clean::ALL);
    let init = if init_exits { intercept::INIT } else { 0 };
    control.intercepts[intercept::GENERAL] =
        init | intercept::CPUID | intercept::INVD | intercept::INVLPGA | intercept::MSR | intercept::SHUTDOWN;
    control.intercepts[intercept::MORE] = intercept::SVM | intercept::XSETBV;
    control.msrpm_base_pa = permissions_map.0;
    control.guest_asid = GUEST_ASID;
    control.tlb_control = tlb_control::ALL;
    control.nested_control = NP_ENABLE;
    control.n_cr3 = root.0;
}

/// Makes the guest's state that after INIT, which `state` has. CD and NW of CR0 stay, as do the MSRs.
pub fn init(vmcb: &mut Page, state: &CpuState) {
    let cache_bits = vmcb.save.cr0 & (CR0_CD | CR0_NW);
    guest_state::load(vmcb, state);
    vmcb.save_mut(Clean::ALL).cr0 |= cache_bits;
    let control = vmcb.control_mut(Clean::ALL);
    (control.interrupt_shadow, control.eventinj) = (0, 0);
}

/// Starts a CPU, which is in the state after INIT, at the page that the vector of a start-up IPI names. AMD APM Vol. 2, 16.5
/// "Interprocessor Interrupts (IPI)".
pub fn startup(vmcb: &mut Page, vector: u8) {
    let save = vmcb.save_mut(Clean::ALL);
    save.cs = Segment::from(&cpu_state::Segment::started_at(vector));
    save.rip = 0;
}

/// Parts that are clean after an exit.
pub const fn clean(capabilities: &Capabilities) -> Clean {
    if capabilities.clean_bits { Clean::ALL } else { Clean::empty() }
}

// Vidar's own pages have the type that the first entry names.
const _: () = assert!(pat::HOST_PAT & 0xff == 6);
