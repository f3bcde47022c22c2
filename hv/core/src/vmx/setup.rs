//! The first contents of a VMCS: controls, host state, and the guest's state other than its registers.

use super::capabilities::Capabilities;
use super::controls::{entry, exit, pin, primary, secondary};
use super::ept;
use super::event::activity;
use super::field::switched_msrs::{GUEST_BNDCFGS, HOST_PERF_GLOBAL_CTRL};
use super::field::*;
use super::guest_state::{self, cr0_mask, cr4_mask};
use crate::mem::addr::{Hpa, PAGE_SIZE};
use crate::mem::pat;
use crate::policy::guard::{self, Guard};
use crate::vmm::cpu_state::{Segment, SegmentRegister};
use crate::x86::msr;

/// The VPID that tags the guest's translations. VPID 0 tags Vidar's own.
pub const GUEST_VPID: u16 = 1;

/// Writes the controls. Intel SDM Vol. 3C, 25.6 "VM-Execution Control Fields" to 25.8 "VM-Entry Control Fields".
///
/// With `guard` writes that change a bit which can be pinned exit as well. A write that leaves such a bit as the read
/// shadow has it does not exit.
pub fn controls(
    vmcs: &mut impl RootFieldsMut,
    capabilities: &Capabilities,
    msr_bitmap: Hpa,
    ept_root: Hpa,
    guard: Guard,
) {
    vmcs.write_root(PIN_BASED_CONTROLS, capabilities.pin);
    vmcs.write_root(PRIMARY_CONTROLS, capabilities.primary);
    vmcs.write_root(SECONDARY_CONTROLS, capabilities.secondary);
    vmcs.write_root(EXIT_CONTROLS, capabilities.exit);
    vmcs.write(ENTRY_CONTROLS, capabilities.entry);
    vmcs.write_root(MSR_BITMAP, msr_bitmap.0);
    vmcs.write_root(EPT_POINTER, ept::pointer(ept_root));
    // This value means that there is no shadow VMCS.
    vmcs.write_root(VMCS_LINK_POINTER, u64::MAX);
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
    // Page faults are not in the exception bitmap. With equal mask and match no page fault exits.
    vmcs.write(PAGE_FAULT_ERROR_CODE_MASK, 0);
    vmcs.write(PAGE_FAULT_ERROR_CODE_MATCH, 0);
    vmcs.write(CR3_TARGET_COUNT, 0);
    let (cr0, cr4) = if guard >= Guard::Cpu { (guard::CR0_BITS, guard::CR4_BITS) } else { (0, 0) };
    vmcs.write(CR0_GUEST_HOST_MASK, Natural(cr0_mask(capabilities) | cr0));
    vmcs.write(CR4_GUEST_HOST_MASK, Natural(cr4_mask(capabilities) | cr4));
    vmcs.write_root(EXIT_MSR_STORE_COUNT, 0);
    vmcs.write_root(EXIT_MSR_LOAD_COUNT, 0);
    vmcs.write_root(ENTRY_MSR_LOAD_COUNT, 0);
    vmcs.write(ENTRY_INTERRUPTION_INFO, 0);
    vmcs.write(ENTRY_EXCEPTION_ERROR_CODE, 0);
    vmcs.write(ENTRY_INSTRUCTION_LENGTH, 0);
}

/// Has NMIs exit, so that one CPU can call another out of the guest. Those that are the guest's are injected.
pub fn watch_nmis(vmcs: &mut impl RootFieldsMut, capabilities: &Capabilities) {
    vmcs.write_root(PIN_BASED_CONTROLS, capabilities.pin | pin::NMI_EXITING | pin::VIRTUAL_NMIS);
}

/// Makes accesses to I/O ports exit as the map at `map` says. It is two bitmaps: first that of the ports below 8000H,
/// then that of the others.
pub fn watch_ports(vmcs: &mut impl RootFieldsMut, capabilities: &Capabilities, map: Hpa) {
    vmcs.write_root(IO_BITMAP_A, map.0);
    vmcs.write_root(IO_BITMAP_B, map.0 + PAGE_SIZE);
    vmcs.write_root(PRIMARY_CONTROLS, capabilities.primary | primary::IO_BITMAPS);
}

/// The values that exits load into the CPU's registers.
#[derive(Debug, Clone, Copy)]
pub struct HostState {
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
    /// The address at which the CPU goes on after an exit.
    pub rip: u64,
}

/// Writes the host-state area. Intel SDM Vol. 3C, 25.5 "Host-State Area".
pub fn host_state(vmcs: &mut impl RootFieldsMut, capabilities: &Capabilities, host: &HostState) {
    vmcs.write_root(HOST_CR0, Natural(host.cr0));
    vmcs.write_root(HOST_CR3, Natural(host.cr3));
    vmcs.write_root(HOST_CR4, Natural(host.cr4));
    vmcs.write_root(HOST_CS_SELECTOR, host.cs);
    vmcs.write_root(HOST_TR_SELECTOR, host.tr);
    for field in [HOST_SS_SELECTOR, HOST_DS_SELECTOR, HOST_ES_SELECTOR, HOST_FS_SELECTOR, HOST_GS_SELECTOR] {
        vmcs.write_root(field, 0);
    }
    vmcs.write_root(HOST_FS_BASE, Natural(0));
    vmcs.write_root(HOST_GS_BASE, Natural(host.gs_base));
    vmcs.write_root(HOST_TR_BASE, Natural(host.tr_base));
    vmcs.write_root(HOST_GDTR_BASE, Natural(host.gdt));
    vmcs.write_root(HOST_IDTR_BASE, Natural(host.idt));
    vmcs.write_root(HOST_SYSENTER_CS, 0);
    vmcs.write_root(HOST_SYSENTER_ESP, Natural(0));
    vmcs.write_root(HOST_SYSENTER_EIP, Natural(0));
    vmcs.write_root(HOST_PAT, pat::HOST_PAT);
    vmcs.write_root(HOST_EFER, host.efer);
    vmcs.write_root(HOST_RIP, Natural(host.rip));
    if capabilities.exit & exit::LOAD_PERF_GLOBAL != 0 {
        vmcs.write_root(HOST_PERF_GLOBAL_CTRL, 0);
    }
    if capabilities.exit & exit::LOAD_CET != 0 {
        vmcs.write_root(cet::HOST_S_CET, Natural(0));
        vmcs.write_root(cet::HOST_SSP, Natural(0));
        vmcs.write_root(cet::HOST_INTERRUPT_SSP_TABLE, Natural(0));
    }
}

/// The values of MSRs which VM entries load, as firmware, or the guest before an INIT, has left them in the CPU. The
/// guest starts with them, as on a bare machine.
#[derive(Debug, Clone, Copy)]
pub struct InitialMsrs {
    /// IA32_PAT.
    pub pat: u64,
    /// IA32_SYSENTER_CS.
    pub sysenter_cs: u32,
    /// IA32_SYSENTER_ESP.
    pub sysenter_esp: u64,
    /// IA32_SYSENTER_EIP.
    pub sysenter_eip: u64,
}

/// Writes the guest's MSRs and its non-register state, for the start of a guest. Intel SDM Vol. 3C, 25.4 "Guest-State
/// Area".
pub fn initial_msrs(vmcs: &mut impl FieldsMut, capabilities: &Capabilities, initial: &InitialMsrs) {
    vmcs.write(GUEST_PAT, initial.pat);
    vmcs.write(GUEST_SYSENTER_CS, initial.sysenter_cs);
    vmcs.write(GUEST_SYSENTER_ESP, Natural(initial.sysenter_esp));
    vmcs.write(GUEST_SYSENTER_EIP, Natural(initial.sysenter_eip));
    vmcs.write(GUEST_DEBUGCTL, 0);
    reset_cet(vmcs, capabilities);
    vmcs.write(GUEST_INTERRUPTIBILITY, 0);
}

/// Clears the guest's CET state in the VMCS, if the VMCS has it.
fn reset_cet(vmcs: &mut impl FieldsMut, capabilities: &Capabilities) {
    if capabilities.entry & entry::LOAD_CET != 0 {
        vmcs.write(cet::GUEST_S_CET, Natural(0));
        vmcs.write(cet::GUEST_SSP, Natural(0));
        vmcs.write(cet::GUEST_INTERRUPT_SSP_TABLE, Natural(0));
    }
}

/// Resets the rest of the guest's state as INIT does, after [`guest_state::load`] has reset the registers. With `waits`
/// the CPU then waits in the guest for a start-up IPI. Of the extended state INIT resets only CET and MPX.
pub fn init(vmcs: &mut impl FieldsMut, capabilities: &Capabilities, waits: bool) {
    if waits {
        vmcs.write(GUEST_ACTIVITY_STATE, activity::WAIT_FOR_SIPI);
    } else {
        vmcs.write(GUEST_INTERRUPTIBILITY, 0);
    }
    reset_cet(vmcs, capabilities);
    if capabilities.entry & entry::LOAD_BNDCFGS != 0 {
        vmcs.write(GUEST_BNDCFGS, 0);
    }
}

/// Starts a CPU at the page that the vector of a start-up IPI names. The CPU must be in the state after INIT. Intel SDM
/// Vol. 3C, 26.5.2 "Other Causes of VM Exits", start-up IPIs.
pub fn startup(vmcs: &mut impl FieldsMut, vector: u8) {
    guest_state::fields(SegmentRegister::Cs).write(vmcs, &Segment::started_at(vector));
    vmcs.write(GUEST_RIP, Natural(0));
    vmcs.write(GUEST_ACTIVITY_STATE, activity::ACTIVE);
    // After wait-for-SIPI, Bochs 2.7 reports blocking by SMI and by NMI, although the start-up IPI has ended the
    // blocking.
    vmcs.write(GUEST_INTERRUPTIBILITY, 0);
}

/// Calls `clear` with each MSR of CET and MPX that INIT clears, that the CPU has, and that the VMCS does not hold.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vmx::fake::{FakeVmcs, capabilities};

    const HOST: HostState = HostState {
        cr0: 0x8000_0031,
        cr3: 0x20_5000,
        cr4: 0x4_2020,
        efer: 0xd00,
        cs: 0x8,
        tr: 0x18,
        gs_base: 0xffff_ffff_8005_0000,
        tr_base: 0xffff_ffff_8005_1000,
        gdt: 0xffff_ffff_8005_2000,
        idt: 0xffff_ffff_8005_3000,
        rip: 0xffff_ffff_8000_1234,
    };

    #[test]
    fn the_first_contents_have_all_that_vidar_depends_on() {
        let (mut vmcs, capabilities) = (FakeVmcs::default(), capabilities());
        controls(&mut vmcs, &capabilities, Hpa(0x20_6000), Hpa(0x20_7000), Guard::Off);
        watch_ports(&mut vmcs, &capabilities, Hpa(0x20_8000));
        host_state(&mut vmcs, &capabilities, &HOST);
        for (name, encoding) in root() {
            let by_assembly = encoding == HOST_RSP.encoding();
            assert_eq!(vmcs.0.contains_key(&encoding), !by_assembly, "{name}");
        }
        assert_eq!(vmcs.read(EPT_POINTER), ept::pointer(Hpa(0x20_7000)));
        assert_eq!((vmcs.read(MSR_BITMAP), vmcs.read(VMCS_LINK_POINTER)), (0x20_6000, u64::MAX));
        assert_ne!(vmcs.read(PRIMARY_CONTROLS) & primary::IO_BITMAPS, 0);
        assert_eq!([IO_BITMAP_A, IO_BITMAP_B].map(|field| vmcs.read(field)), [0x20_8000, 0x20_9000]);
        assert_ne!(vmcs.read(SECONDARY_CONTROLS) & secondary::EPT, 0);
        assert_eq!((vmcs.read(HOST_RIP).0, vmcs.read(HOST_CR3).0), (HOST.rip, HOST.cr3));
        assert_eq!((vmcs.read(HOST_CS_SELECTOR), vmcs.read(HOST_TR_SELECTOR)), (HOST.cs, HOST.tr));
        assert_eq!((vmcs.read(HOST_IDTR_BASE).0, vmcs.read(HOST_GS_BASE).0), (HOST.idt, HOST.gs_base));
        let counts = [EXIT_MSR_STORE_COUNT, EXIT_MSR_LOAD_COUNT, ENTRY_MSR_LOAD_COUNT];
        assert_eq!(counts.map(|count| vmcs.read(count)), [0; 3]);
    }

    #[test]
    fn the_guard_takes_the_bits_that_can_be_pinned() {
        let (mut vmcs, capabilities) = (FakeVmcs::default(), capabilities());
        let mut masks = |guard| {
            controls(&mut vmcs, &capabilities, Hpa(0x20_6000), Hpa(0x20_7000), guard);
            [CR0_GUEST_HOST_MASK, CR4_GUEST_HOST_MASK].map(|field| vmcs.read(field).0)
        };
        let [cr0, cr4] = masks(Guard::Off);
        assert_eq!((cr0, cr4), (cr0_mask(&capabilities), cr4_mask(&capabilities)));
        assert_eq!(masks(Guard::Cpu), [cr0 | 0x8001_0001, cr4 | 0xb0_0800]);
    }

    #[test]
    fn every_field_of_the_host_state_is_one_that_vidar_depends_on() {
        let host_state = |encoding: &u32| encoding >> 10 & 3 == 3;
        let all = ALL.iter().map(|(_, encoding)| *encoding).filter(host_state).count();
        assert_eq!(root().filter(|(_, encoding)| host_state(encoding)).count(), all);
    }
}
