//! Switching VT-x on: its capabilities, firmware's lock, the fixed bits, and VMXON.

#![expect(unsafe_code, reason = "control registers and MSRs are written, and VMXON is executed")]

use alloc::vec::Vec;

use vidar_core::mem::addr::Hpa;
use vidar_core::mem::layout::direct;
use vidar_core::vmx::capabilities::{Capabilities, RawCapabilities};
use vidar_core::vmx::feature_control::{Decision, Features, decide};
use x86_64::registers::control::{Cr0, Cr0Flags, Cr4, Cr4Flags};

use super::vmcs::{self, Failure};
use crate::arch::{cpuid, msr};
use crate::debug::ending::{self, Hooks};

/// Why VT-x cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unavailable {
    /// The CPU does not have VT-x.
    Absent,
    /// Firmware has locked VT-x off.
    LockedOff,
    /// The CPU's VT-x lacks these capabilities, which Vidar needs.
    Missing(Vec<&'static str>),
}

/// Returns the capabilities of this CPU's VT-x. If firmware has limited the leaves of CPUID, the limit is removed.
///
/// # Errors
/// [`Unavailable`] if the CPU has no VT-x, if it is locked off, or if it lacks a capability that Vidar needs.
pub fn probe() -> Result<Capabilities, Unavailable> {
    if !cpuid::has_vmx() {
        return Err(Unavailable::Absent);
    }
    if feature_control() == Decision::LockedOff {
        return Err(Unavailable::LockedOff);
    }
    show_all_leaves();
    let capabilities = Capabilities::choose(&read_capabilities()).map_err(Unavailable::Missing)?;
    Ok(capabilities.with_cpuid(cpuid::cpuid))
}

/// Removes firmware's limit on the leaves of CPUID, as Linux does when it starts: what Vidar allows the guest depends
/// on leaf 7. Intel SDM Vol. 4, 2.1 "Architectural MSRs", IA32_MISC_ENABLE.
fn show_all_leaves() {
    const LIMIT_CPUID_MAXVAL: u64 = 1 << 22;
    if let Ok(value) = msr::read_checked(msr::MISC_ENABLE)
        && value & LIMIT_CPUID_MAXVAL != 0
    {
        // SAFETY: the bit affects nothing but what CPUID returns. A CPU that refuses the write keeps its limit.
        let _ = unsafe { msr::write_checked(msr::MISC_ENABLE, value & !LIMIT_CPUID_MAXVAL) };
    }
}

/// Returns what must be done about IA32_FEATURE_CONTROL on this CPU.
fn feature_control() -> Decision {
    let features = Features { sgx: cpuid::has_sgx(), sgx_launch_control: cpuid::has_sgx_launch_control() };
    decide(msr::read_checked(msr::FEATURE_CONTROL).ok(), features)
}

/// Reads the capability MSRs. An MSR that the CPU lacks reads as 0, which allows nothing.
#[cold]
#[inline(never)] // the probe and the rules of VM entry use it
pub fn read_capabilities() -> RawCapabilities {
    let read = read_or_0;
    RawCapabilities {
        basic: read(0x480),
        misc: read(0x485),
        cr0_fixed: [read(0x486), read(0x487)],
        cr4_fixed: [read(0x488), read(0x489)],
        secondary: read(0x48b),
        ept_vpid: read(0x48c),
        pin: read(0x48d),
        primary: read(0x48e),
        exit: read(0x48f),
        entry: read(0x490),
    }
}

/// Reads an MSR, as 0 if the CPU lacks it.
#[cold]
#[inline(never)] // every capability MSR is read
pub fn read_or_0(index: u32) -> u64 {
    msr::read_checked(index).unwrap_or(0)
}

/// Enters VMX operation on this CPU, with `region` as its VMXON region.
///
/// # Errors
/// [`Failure`] if VMXON fails.
///
/// # Safety
/// [`probe`] has found VT-x usable on this CPU, and nothing else uses the frame `region`.
pub unsafe fn enable(capabilities: &Capabilities, region: Hpa) -> Result<(), Failure> {
    if let Decision::Write(value) = feature_control() {
        // SAFETY: the value enables VMX, and SGX if the CPU has it, and locks the register.
        unsafe { msr::write(msr::FEATURE_CONTROL, value) };
    }
    // SAFETY: NE, VMXE and OSXSAVE change nothing for code that uses neither x87 nor XSAVE. The other bits that VMX
    // operation needs in CR0 and CR4 are on already in a 64-bit kernel with write protection.
    unsafe {
        Cr0::update(|cr0| cr0.insert(Cr0Flags::NUMERIC_ERROR));
        Cr4::update(|cr4| {
            cr4.insert(Cr4Flags::VIRTUAL_MACHINE_EXTENSIONS);
            cr4.set(Cr4Flags::OSXSAVE, cpuid::has_xsave());
        });
    }
    // Nothing is to be done before a halt: SMIs are delivered in VMX operation as usual, and INIT may stay blocked
    // while the CPU halts.
    ending::set_hooks(Hooks { before_halt: || {}, before_reset: leave });
    // SAFETY: the caller promises that VT-x is usable here and that nothing else uses the frame, and the revision
    // identifier makes the frame a VMXON region. VMXE is set.
    let entered = unsafe {
        write_revision(region, capabilities.revision);
        vmcs::vmxon(region)
    };
    if entered.is_err() {
        clear_vmxe();
    }
    entered
}

/// Leaves VMX operation, if this CPU is in it. INIT is blocked in VMX operation, which under another hypervisor would
/// even survive a reset. The current VMCS is lost.
pub fn leave() {
    if Cr4::read().contains(Cr4Flags::VIRTUAL_MACHINE_EXTENSIONS) {
        // SAFETY: VMXE stays set only where VMXON has succeeded, and the guest does not run on this CPU any more.
        unsafe { vmcs::vmxoff() };
        clear_vmxe();
    }
}

/// Clears CR4.VMXE, outside of VMX operation.
#[cold]
#[inline(never)]
fn clear_vmxe() {
    // SAFETY: code outside of VMX operation does not depend on the bit.
    unsafe { Cr4::update(|cr4| cr4.remove(Cr4Flags::VIRTUAL_MACHINE_EXTENSIONS)) };
}

/// Writes the revision identifier to the first word of a VMXON region or a VMCS.
///
/// # Safety
/// `region` is a frame of Vidar's that the CPU does not use as a region or as a current VMCS.
pub unsafe fn write_revision(region: Hpa, revision: u32) {
    // SAFETY: the caller promises that the frame is Vidar's, so it is in the direct map, and that the CPU does not use
    // it.
    unsafe { (direct(region).0 as *mut u32).write(revision) };
}
