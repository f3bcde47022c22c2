//! Turning VT-x on: what the CPU can do, firmware's lock, the fixed bits, VMXON.

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
    /// The CPU does not have it.
    Absent,
    /// Firmware has locked it off.
    LockedOff,
    /// The CPU's lacks what Vidar needs: these.
    Missing(Vec<&'static str>),
}

/// What this CPU's VT-x can do.
///
/// # Errors
/// [`Unavailable`] where it is not there or not enough.
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

/// Ends firmware's limit on the leaves of CPUID, as Linux does when it starts: what Vidar allows the guest depends on leaf 7.
/// Intel SDM Vol. 4, 2.1 "Architectural MSRs", IA32_MISC_ENABLE.
fn show_all_leaves() {
    const LIMIT_CPUID_MAXVAL: u64 = 1 << 22;
    if let Ok(value) = msr::read_checked(msr::MISC_ENABLE)
        && value & LIMIT_CPUID_MAXVAL != 0
    {
        // SAFETY: the bit changes nothing but what CPUID returns. A CPU that does not take it keeps its limit.
        let _ = unsafe { msr::write_checked(msr::MISC_ENABLE, value & !LIMIT_CPUID_MAXVAL) };
    }
}

/// What this CPU's IA32_FEATURE_CONTROL asks for.
fn feature_control() -> Decision {
    let features = Features { sgx: cpuid::has_sgx(), sgx_launch_control: cpuid::has_sgx_launch_control() };
    decide(msr::read_checked(msr::FEATURE_CONTROL).ok(), features)
}

/// Reads the capability MSRs; those that the CPU lacks read as if they allowed nothing.
fn read_capabilities() -> RawCapabilities {
    let read = |index| msr::read_checked(index).unwrap_or(0);
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

/// Enters VMX operation on this CPU, with `region` as its VMXON region.
///
/// # Errors
/// [`Failure`] where VMXON fails.
///
/// # Safety
/// [`probe`] found VT-x usable here; `region` is a zeroed frame that is not used for anything else.
pub unsafe fn enable(capabilities: &Capabilities, region: Hpa) -> Result<(), Failure> {
    if let Decision::Write(value) = feature_control() {
        // SAFETY: the value opens VMX and SGX, as far as the CPU has it, and locks.
        unsafe { msr::write(msr::FEATURE_CONTROL, value) };
    }
    // SAFETY: NE, VMXE and OSXSAVE change nothing for code that uses neither x87 nor XSAVE; what else CR0 and CR4
    // need in VMX operation is on already in a 64-bit kernel with write protection.
    unsafe {
        Cr0::update(|cr0| cr0.insert(Cr0Flags::NUMERIC_ERROR));
        Cr4::update(|cr4| {
            cr4.insert(Cr4Flags::VIRTUAL_MACHINE_EXTENSIONS);
            cr4.set(Cr4Flags::OSXSAVE, cpuid::has_xsave());
        });
    }
    // SMIs come in VMX operation as ever, and an INIT is better blocked there as long as the CPU halts.
    ending::set_hooks(Hooks { before_halt: || {}, before_reset: leave });
    // SAFETY: the caller's promise; the revision makes the frame a VMXON region.
    unsafe {
        write_revision(region, capabilities.revision);
        vmcs::vmxon(region)
    }
}

/// Leaves VMX operation, if this CPU is in it: INIT is blocked there, and under another hypervisor it would survive a reset.
/// The VMCS is lost.
pub fn leave() {
    if Cr4::read().contains(Cr4Flags::VIRTUAL_MACHINE_EXTENSIONS) {
        // SAFETY: `enable` sets VMXE together with VMXON, and no guest runs any more.
        unsafe {
            vmcs::vmxoff();
            Cr4::update(|cr4| cr4.remove(Cr4Flags::VIRTUAL_MACHINE_EXTENSIONS));
        }
    }
}

/// Puts the revision identifier into the first word of a VMXON region or a VMCS.
///
/// # Safety
/// `region` is a frame of Vidar's that is not in use yet.
pub unsafe fn write_revision(region: Hpa, revision: u32) {
    // SAFETY: the frame is mapped in the direct map, and the caller's alone.
    unsafe { (direct(region).0 as *mut u32).write(revision) };
}
