//! The first contents of a VMCB: what exits, and the guest's state.

use super::capabilities::Capabilities;
use super::vmcb::{Clean, Control, NP_ENABLE, Page, Save, Segment, intercept, tlb_control};
use crate::mem::addr::Hpa;
use crate::mem::pat;
use crate::policy::control::{CR0_CD, CR0_ET, CR0_NW, CR0_PE};
use crate::vmm::entry::EntryState;
use crate::x86::msr::EFER_SVME;

/// The ASID of the guest's translations; 0 is Vidar's own.
const GUEST_ASID: u32 = 1;

/// Attributes: 32-bit code, 4 GiB, executable and readable, accessed.
const FLAT_CODE: u16 = 0xc9b;
/// Attributes: 32-bit data, 4 GiB, writable, accessed.
const FLAT_DATA: u16 = 0xc93;
/// Attributes: busy 32-bit TSS.
const BUSY_TSS: u16 = 0x08b;
/// Attributes: LDT.
const LDT: u16 = 0x082;

/// DR6 and DR7 after reset.
const DR6_RESET: u64 = 0xffff_0ff0;
const DR7_RESET: u64 = 0x400;
/// RFLAGS: the bit that is always 1.
const RFLAGS_RESET: u64 = 2;

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

/// The boot CPU at the kernel's 32-bit entry. FS, GS, TR, LDTR and the MSRs of VMLOAD are in the VMCB already, as firmware
/// left them: what of it the guest would find without Vidar stays.
pub fn kernel_state(vmcb: &mut Page, state: &EntryState) {
    let save = vmcb.save_mut(Clean::ALL);
    reset_registers(save);
    let data = Segment { selector: state.data, attributes: FLAT_DATA, limit: u32::MAX, base: 0 };
    save.cs = Segment { selector: state.code, attributes: FLAT_CODE, limit: u32::MAX, base: 0 };
    (save.ss, save.ds, save.es, save.fs, save.gs) = (data, data, data, data, data);
    save.tr = Segment { attributes: BUSY_TSS, limit: 0xffff, ..Segment::default() };
    save.ldtr = Segment { limit: 0xffff, ..Segment::default() };
    save.gdtr = Segment { base: state.gdt.0, limit: state.gdt_limit.into(), ..Segment::default() };
    save.idtr = Segment::default();
    save.cr0 = CR0_PE | CR0_ET;
    save.rip = state.entry.0;
}

/// The state after INIT. Intel SDM Vol. 3A, 10.1.1 "Processor State After Reset", and AMD APM Vol. 2, 14.1.3 "Processor
/// Initialization State". CD and NW of CR0 stay, as do the MSRs.
pub fn init_state(vmcb: &mut Page) {
    let save = vmcb.save_mut(Clean::ALL);
    let cache_bits = save.cr0 & (CR0_CD | CR0_NW);
    reset_registers(save);
    let data = Segment { selector: 0, attributes: 0x093, limit: 0xffff, base: 0 };
    save.cs = Segment { selector: 0xf000, attributes: 0x09b, limit: 0xffff, base: 0xffff_0000 };
    (save.ss, save.ds, save.es, save.fs, save.gs) = (data, data, data, data, data);
    save.tr = Segment { attributes: BUSY_TSS, limit: 0xffff, ..Segment::default() };
    save.ldtr = Segment { attributes: LDT, limit: 0xffff, ..Segment::default() };
    save.gdtr = Segment { limit: 0xffff, ..Segment::default() };
    save.idtr = save.gdtr;
    save.cr0 = CR0_ET | cache_bits;
    save.rip = 0xfff0;
    let control = vmcb.control_mut(Clean::ALL);
    (control.interrupt_shadow, control.eventinj) = (0, 0);
}

/// A CPU in the state after INIT at the page that a start-up IPI names. AMD APM Vol. 2, 16.5 "Interprocessor Interrupts
/// (IPI)".
pub fn startup_state(vmcb: &mut Page, vector: u8) {
    let save = vmcb.save_mut(Clean::ALL);
    let selector = u16::from(vector) << 8;
    save.cs = Segment { selector, attributes: 0x09b, limit: 0xffff, base: u64::from(selector) << 4 };
    save.rip = 0;
}

/// What start and INIT have in common.
const fn reset_registers(save: &mut Save) {
    save.cpl = 0;
    save.efer = EFER_SVME;
    (save.cr2, save.cr3, save.cr4) = (0, 0, 0);
    (save.dr6, save.dr7) = (DR6_RESET, DR7_RESET);
    save.rflags = RFLAGS_RESET;
    (save.rsp, save.rax) = (0, 0);
    (save.s_cet, save.ssp, save.isst_addr) = (0, 0, 0);
}

/// Parts that are clean after an exit.
pub const fn clean(capabilities: &Capabilities) -> Clean {
    if capabilities.clean_bits { Clean::ALL } else { Clean::empty() }
}

// Vidar's own pages have the type that the first entry names.
const _: () = assert!(pat::HOST_PAT & 0xff == 6);
