//! The first contents of a VMCS, in the order of the manual's chapters: controls, host state, guest state.

use super::capabilities::Capabilities;
use super::controls::{entry, exit, secondary};
use super::ept;
use super::event::{activity, interruptibility};
use super::field::put_away::{GUEST_BNDCFGS, HOST_PERF_GLOBAL_CTRL};
use super::field::*;
use crate::mem::addr::Hpa;
use crate::mem::pat;
use crate::policy::control::{CR0_ET, CR0_PE, CR4_VMXE};
use crate::vmm::crash::Segment;
use crate::vmm::entry::EntryState;
use crate::x86::msr;

/// The VPID of the guest's translations; 0 is Vidar's own.
pub const GUEST_VPID: u16 = 1;

/// Frames that a virtual CPU needs beside the second stage.
#[derive(Debug, Clone, Copy)]
pub struct CpuFrames {
    /// VMXON region.
    pub vmxon: Hpa,
    /// VMCS.
    pub vmcs: Hpa,
    /// MSR bitmaps, filled, which all CPUs share: the usual one, and the one in which writes of EFER exit.
    pub msr_bitmaps: [Hpa; 2],
}

/// Access rights of a segment that cannot be used.
pub const UNUSABLE: u32 = 1 << 16;
/// Access rights: 32-bit code, 4 GiB, executable and readable, accessed.
const FLAT_CODE: u32 = 0xc09b;
/// Access rights: 32-bit data, 4 GiB, writable, accessed.
const FLAT_DATA: u32 = 0xc093;
/// Access rights: busy 32-bit TSS.
const BUSY_TSS: u32 = 0x008b;

/// DR7 after reset.
pub const DR7_RESET: u64 = 0x400;

/// Bits of CR0 that the guest does not own: those that VMX operation fixes.
pub const fn cr0_mask(capabilities: &Capabilities) -> u64 {
    capabilities.cr0_forced | capabilities.cr0_forbidden
}

/// Bits of CR4 that are not in the CPU as the guest wrote them: VMXE is on behind its back.
pub const CR4_SHADOWED: u64 = CR4_VMXE;

/// Bits of CR4 that the guest does not own: those that it may not set, so that each write which tries exits.
pub const fn cr4_mask(capabilities: &Capabilities) -> u64 {
    !capabilities.cr4_allowed
}

/// Intel SDM Vol. 3C, 25.6 "VM-Execution Control Fields" to 25.8 "VM-Entry Control Fields".
pub fn controls(vmcs: &mut impl FieldsMut, capabilities: &Capabilities, msr_bitmap: Hpa, ept_root: Hpa) {
    vmcs.write(PIN_BASED_CONTROLS, capabilities.pin);
    vmcs.write(PRIMARY_CONTROLS, capabilities.primary);
    vmcs.write(SECONDARY_CONTROLS, capabilities.secondary);
    vmcs.write(EXIT_CONTROLS, capabilities.exit);
    vmcs.write(ENTRY_CONTROLS, capabilities.entry);
    vmcs.write(MSR_BITMAP, msr_bitmap.0);
    vmcs.write(EPT_POINTER, ept::pointer(ept_root));
    if capabilities.has(secondary::VPID) {
        vmcs.write(VPID, GUEST_VPID);
    }
    if capabilities.has(secondary::XSAVES) {
        vmcs.write(XSS_EXITING_BITMAP, 0);
    }
    if capabilities.has(secondary::PCONFIG) {
        vmcs.write(PCONFIG_EXITING_BITMAP, 0);
    }
    vmcs.write(TSC_OFFSET, 0);
    vmcs.write(EXCEPTION_BITMAP, 0);
    // With no page faults in the exception bitmap these two have no effect, as long as they are equal.
    vmcs.write(PAGE_FAULT_ERROR_CODE_MASK, 0);
    vmcs.write(PAGE_FAULT_ERROR_CODE_MATCH, 0);
    vmcs.write(CR3_TARGET_COUNT, 0);
    vmcs.write(CR0_GUEST_HOST_MASK, Natural(cr0_mask(capabilities)));
    vmcs.write(CR4_GUEST_HOST_MASK, Natural(cr4_mask(capabilities)));
    vmcs.write(EXIT_MSR_STORE_COUNT, 0);
    vmcs.write(EXIT_MSR_LOAD_COUNT, 0);
    vmcs.write(ENTRY_MSR_LOAD_COUNT, 0);
    vmcs.write(ENTRY_INTERRUPTION_INFO, 0);
    vmcs.write(ENTRY_EXCEPTION_ERROR_CODE, 0);
    vmcs.write(ENTRY_INSTRUCTION_LENGTH, 0);
}

/// What the CPU is to be when the guest has left.
#[derive(Debug, Clone, Copy)]
pub struct Host {
    /// CR0.
    pub cr0: u64,
    /// CR3.
    pub cr3: u64,
    /// CR4.
    pub cr4: u64,
    /// IA32_EFER.
    pub efer: u64,
    /// Selector of CS.
    pub cs: u16,
    /// Selector of TR.
    pub tr: u16,
    /// Base address of GS.
    pub gs_base: u64,
    /// Base address of TR.
    pub tr_base: u64,
    /// Base address of the GDT.
    pub gdt: u64,
    /// Base address of the IDT.
    pub idt: u64,
    /// Where the CPU goes on.
    pub rip: u64,
}

/// Writes the host-state area. Intel SDM Vol. 3C, 25.5 "Host-State Area".
pub fn host_state(vmcs: &mut impl FieldsMut, capabilities: &Capabilities, host: &Host) {
    vmcs.write(HOST_CR0, Natural(host.cr0));
    vmcs.write(HOST_CR3, Natural(host.cr3));
    vmcs.write(HOST_CR4, Natural(host.cr4));
    vmcs.write(HOST_CS_SELECTOR, host.cs);
    vmcs.write(HOST_TR_SELECTOR, host.tr);
    for field in [HOST_SS_SELECTOR, HOST_DS_SELECTOR, HOST_ES_SELECTOR, HOST_FS_SELECTOR, HOST_GS_SELECTOR] {
        vmcs.write(field, 0);
    }
    vmcs.write(HOST_FS_BASE, Natural(0));
    vmcs.write(HOST_GS_BASE, Natural(host.gs_base));
    vmcs.write(HOST_TR_BASE, Natural(host.tr_base));
    vmcs.write(HOST_GDTR_BASE, Natural(host.gdt));
    vmcs.write(HOST_IDTR_BASE, Natural(host.idt));
    vmcs.write(HOST_SYSENTER_CS, 0);
    vmcs.write(HOST_SYSENTER_ESP, Natural(0));
    vmcs.write(HOST_SYSENTER_EIP, Natural(0));
    vmcs.write(HOST_PAT, pat::HOST_PAT);
    vmcs.write(HOST_EFER, host.efer);
    vmcs.write(HOST_RIP, Natural(host.rip));
    if capabilities.exit & exit::LOAD_PERF_GLOBAL != 0 {
        vmcs.write(HOST_PERF_GLOBAL_CTRL, 0);
    }
    if capabilities.exit & exit::LOAD_CET != 0 {
        vmcs.write(cet::HOST_S_CET, Natural(0));
        vmcs.write(cet::HOST_SSP, Natural(0));
        vmcs.write(cet::HOST_INTERRUPT_SSP_TABLE, Natural(0));
    }
}

/// What firmware has left in the MSRs that VM entries load: the guest finds it there, as it would without Vidar.
#[derive(Debug, Clone, Copy)]
pub struct Inherited {
    /// IA32_PAT.
    pub pat: u64,
    /// IA32_SYSENTER_CS.
    pub sysenter_cs: u32,
    /// IA32_SYSENTER_ESP.
    pub sysenter_esp: u64,
    /// IA32_SYSENTER_EIP.
    pub sysenter_eip: u64,
}

/// Writes what a guest finds in its MSRs when it begins, and what it has no say in. Intel SDM Vol. 3C, 25.4 "Guest-State
/// Area".
pub fn inherited_state(vmcs: &mut impl FieldsMut, capabilities: &Capabilities, inherited: &Inherited) {
    vmcs.write(GUEST_PAT, inherited.pat);
    vmcs.write(GUEST_SYSENTER_CS, inherited.sysenter_cs);
    vmcs.write(GUEST_SYSENTER_ESP, Natural(inherited.sysenter_esp));
    vmcs.write(GUEST_SYSENTER_EIP, Natural(inherited.sysenter_eip));
    vmcs.write(GUEST_DEBUGCTL, 0);
    reset_cet(vmcs, capabilities);
    vmcs.write(GUEST_INTERRUPTIBILITY, 0);
    // No shadow VMCS.
    vmcs.write(VMCS_LINK_POINTER, u64::MAX);
}

/// The boot CPU at the kernel's 32-bit entry.
pub fn kernel_state(vmcs: &mut impl FieldsMut, capabilities: &Capabilities, state: &EntryState) {
    reset_registers(vmcs, capabilities);
    vmcs.write(GUEST_CR0, Natural(CR0_PE | CR0_ET | capabilities.cr0_forced));
    vmcs.write(CR0_READ_SHADOW, Natural(CR0_PE | CR0_ET));
    for segment in &SEGMENTS {
        let (selector, limit, rights) = match segment.name {
            "cs" => (state.code, 0xffff_ffff, FLAT_CODE),
            "tr" => (0, 0xffff, BUSY_TSS),
            "ldtr" => (0, 0xffff, UNUSABLE),
            _ => (state.data, 0xffff_ffff, FLAT_DATA),
        };
        segment.write(vmcs, selector, 0, limit, rights);
    }
    vmcs.write(GUEST_GDTR_BASE, Natural(state.gdt.0));
    vmcs.write(GUEST_GDTR_LIMIT, state.gdt_limit.into());
    vmcs.write(GUEST_IDTR_BASE, Natural(0));
    vmcs.write(GUEST_IDTR_LIMIT, 0);
    vmcs.write(GUEST_RIP, Natural(state.entry.0));
}

/// The state of CET that the VMCS has.
fn reset_cet(vmcs: &mut impl FieldsMut, capabilities: &Capabilities) {
    if capabilities.entry & entry::LOAD_CET != 0 {
        vmcs.write(cet::GUEST_S_CET, Natural(0));
        vmcs.write(cet::GUEST_SSP, Natural(0));
        vmcs.write(cet::GUEST_INTERRUPT_SSP_TABLE, Natural(0));
    }
}

/// What start and INIT have in common.
fn reset_registers(vmcs: &mut impl FieldsMut, capabilities: &Capabilities) {
    vmcs.write(GUEST_CR3, Natural(0));
    vmcs.write(GUEST_CR4, Natural(CR4_VMXE));
    vmcs.write(CR4_READ_SHADOW, Natural(0));
    vmcs.write(GUEST_DR7, Natural(DR7_RESET));
    vmcs.write(GUEST_RSP, Natural(0));
    vmcs.write(GUEST_RFLAGS, Natural(2));
    vmcs.write(GUEST_EFER, 0);
    vmcs.write(ENTRY_CONTROLS, capabilities.entry);
    let kept = vmcs.read(GUEST_INTERRUPTIBILITY) & interruptibility::NMI;
    clear_non_register_state(vmcs);
    vmcs.write(GUEST_INTERRUPTIBILITY, kept);
}

/// A CPU in the state after INIT at the page that a start-up IPI names. Intel SDM Vol. 3C, 26.5.2 "Other Causes of VM
/// Exits", start-up IPIs, and Vol. 3A, 9.4.3 "MP Initialization Protocol Algorithm for MP Systems".
pub fn startup_state(vmcs: &mut impl FieldsMut, vector: u8) {
    if let Some(cs) = SEGMENTS.iter().find(|segment| segment.name == "cs") {
        let selector = u16::from(vector) << 8;
        cs.write(vmcs, selector, u64::from(selector) << 4, 0xffff, 0x009b);
    }
    vmcs.write(GUEST_RIP, Natural(0));
    vmcs.write(GUEST_ACTIVITY_STATE, 0);
    // Bochs 2.7 reports what wait-for-SIPI blocks as blocked by an SMI and by an NMI; nothing is any more.
    vmcs.write(GUEST_INTERRUPTIBILITY, 0);
}

/// Active, nothing blocked, nothing pending.
fn clear_non_register_state(vmcs: &mut impl FieldsMut) {
    vmcs.write(GUEST_ACTIVITY_STATE, 0);
    vmcs.write(GUEST_INTERRUPTIBILITY, 0);
    vmcs.write(GUEST_PENDING_DEBUG, Natural(0));
    vmcs.write(ENTRY_INTERRUPTION_INFO, 0);
}

/// The fields of one segment register.
pub struct SegmentFields {
    /// Its name.
    pub name: &'static str,
    selector: Field<u16>,
    base: Field<Natural>,
    limit: Field<u32>,
    rights: Field<u32>,
}

impl SegmentFields {
    /// Writes all four.
    pub fn write(&self, vmcs: &mut impl FieldsMut, selector: u16, base: u64, limit: u32, rights: u32) {
        vmcs.write(self.selector, selector);
        vmcs.write(self.base, Natural(base));
        vmcs.write(self.limit, limit);
        vmcs.write(self.rights, rights);
    }

    /// Reads all four.
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
    ($($name:literal $selector:ident $base:ident $limit:ident $rights:ident),* $(,)?) => {
        [$(SegmentFields { name: $name, selector: $selector, base: $base, limit: $limit, rights: $rights }),*]
    };
}

/// The segment registers, in the order of crash reports.
pub static SEGMENTS: [SegmentFields; 8] = segments![
    "cs" GUEST_CS_SELECTOR GUEST_CS_BASE GUEST_CS_LIMIT GUEST_CS_RIGHTS,
    "ss" GUEST_SS_SELECTOR GUEST_SS_BASE GUEST_SS_LIMIT GUEST_SS_RIGHTS,
    "ds" GUEST_DS_SELECTOR GUEST_DS_BASE GUEST_DS_LIMIT GUEST_DS_RIGHTS,
    "es" GUEST_ES_SELECTOR GUEST_ES_BASE GUEST_ES_LIMIT GUEST_ES_RIGHTS,
    "fs" GUEST_FS_SELECTOR GUEST_FS_BASE GUEST_FS_LIMIT GUEST_FS_RIGHTS,
    "gs" GUEST_GS_SELECTOR GUEST_GS_BASE GUEST_GS_LIMIT GUEST_GS_RIGHTS,
    "tr" GUEST_TR_SELECTOR GUEST_TR_BASE GUEST_TR_LIMIT GUEST_TR_RIGHTS,
    "ldtr" GUEST_LDTR_SELECTOR GUEST_LDTR_BASE GUEST_LDTR_LIMIT GUEST_LDTR_RIGHTS,
];

/// The state after INIT. Intel SDM Vol. 3A, 10.1.1 "Processor State After Reset", table "IA-32 and Intel 64
/// Processor States Following Power-up, Reset, or INIT". CD and NW of CR0 stay as they are in the CPU. With `waits` the CPU
/// then waits for a start-up IPI in the guest.
pub fn init_state(vmcs: &mut impl FieldsMut, capabilities: &Capabilities, waits: bool) {
    reset_registers(vmcs, capabilities);
    vmcs.write(GUEST_CR0, Natural(CR0_ET | capabilities.cr0_forced));
    vmcs.write(CR0_READ_SHADOW, Natural(CR0_ET));
    for segment in &SEGMENTS {
        let (selector, base, rights) = match segment.name {
            "cs" => (0xf000, 0xffff_0000, 0x009b),
            "tr" => (0, 0, BUSY_TSS),
            "ldtr" => (0, 0, 0x0082),
            _ => (0, 0, 0x0093),
        };
        segment.write(vmcs, selector, base, 0xffff, rights);
    }
    for (base, limit) in [(GUEST_GDTR_BASE, GUEST_GDTR_LIMIT), (GUEST_IDTR_BASE, GUEST_IDTR_LIMIT)] {
        vmcs.write(base, Natural(0));
        vmcs.write(limit, 0xffff);
    }
    vmcs.write(GUEST_RIP, Natural(0xfff0));
    if waits {
        vmcs.write(GUEST_ACTIVITY_STATE, activity::WAIT_FOR_SIPI);
    }
    // CET and MPX are all that INIT takes from the extended state.
    reset_cet(vmcs, capabilities);
    if capabilities.entry & entry::LOAD_BNDCFGS != 0 {
        vmcs.write(GUEST_BNDCFGS, 0);
    }
}

/// Gives `clear` the MSRs of CET and MPX that INIT clears and that the VMCS does not have, on a CPU with the one or the other.
pub fn clear_msrs(capabilities: &Capabilities, has_cet: bool, has_mpx: bool, clear: impl FnMut(u32)) {
    const USER: [u32; 5] = [msr::U_CET, msr::PL0_SSP, msr::PL0_SSP + 1, msr::PL0_SSP + 2, msr::PL3_SSP];
    const SUPERVISOR: [u32; 2] = [msr::S_CET, msr::INTERRUPT_SSP_TABLE];
    let loads = |control| capabilities.entry & control != 0;
    let lists: [(bool, &[u32]); 3] = [
        (has_mpx && !loads(entry::LOAD_BNDCFGS), &[msr::BNDCFGS]),
        (has_cet, &USER),
        (has_cet && !loads(entry::LOAD_CET), &SUPERVISOR),
    ];
    lists.into_iter().filter(|(exists, _)| *exists).flat_map(|(_, list)| list).copied().for_each(clear);
}
