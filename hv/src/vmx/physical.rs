//! The state of this CPU that a VMCS needs, and what INIT clears in this CPU outside of the VMCS.

#![expect(unsafe_code, reason = "MSRs are reset")]

use vidar_core::vmm::percpu::PerCpu;
use vidar_core::vmx::capabilities::Capabilities;
use vidar_core::vmx::setup::{HostState, InitialMsrs, clear_msrs};
use x86_64::registers::control::{Cr0, Cr3, Cr4};

use super::entry::exit_address;
use crate::arch::{apic_init, cpuid, msr};
use crate::host::exceptions::idt_address;
use crate::host::vcpu::ThisCpu;

/// Returns the state of this CPU that exits are to load.
pub fn host(cpu: &ThisCpu) -> HostState {
    let selectors = cpu.selectors();
    HostState {
        cr0: Cr0::read_raw(),
        cr3: Cr3::read().0.start_address().as_u64(),
        cr4: Cr4::read_raw(),
        efer: msr::read(msr::EFER),
        cs: selectors.code.0,
        tr: selectors.task.0,
        gs_base: &raw const *cpu.percpu() as u64,
        tr_base: selectors.tss,
        gdt: selectors.gdt,
        idt: idt_address(),
        rip: exit_address(),
    }
}

/// Returns the values of this CPU's MSRs with which the guest begins: firmware's, or the guest's own after an INIT.
pub fn initial_msrs(percpu: &PerCpu) -> InitialMsrs {
    InitialMsrs {
        pat: percpu.guest_pat(),
        sysenter_cs: msr::read(msr::SYSENTER_CS) as u32,
        sysenter_esp: msr::read(msr::SYSENTER_ESP),
        sysenter_eip: msr::read(msr::SYSENTER_EIP),
    }
}

/// Does to this CPU, outside of the VMCS, what INIT does to a bare one. With `waits` the local APIC is only disabled:
/// the start-up IPI may come some microseconds later.
pub fn init(capabilities: &Capabilities, waits: bool) {
    if waits {
        apic_init::disable();
    } else {
        apic_init::reset();
    }
    clear_msrs(capabilities, cpuid::has_cet(), cpuid::has_mpx(), |index| {
        // SAFETY: these MSRs belong to the guest, and INIT sets them to 0. A CPU that lacks one of them refuses the
        // write.
        let _ = unsafe { msr::write_checked(index, 0) };
    });
}
