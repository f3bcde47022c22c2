//! Switching AMD-V on: its capabilities, firmware's lock, EFER.SVME, and the host state-save area.

#![expect(unsafe_code, reason = "MSRs and control registers are written")]

use alloc::vec::Vec;

use vidar_core::mem::addr::Hpa;
use vidar_core::policy::cpuid::Policy;
use vidar_core::policy::cr4;
use vidar_core::policy::features::Features;
use vidar_core::svm::capabilities::{Capabilities, Decision, R_INIT, decide};
use vidar_core::svm::efer;
use x86_64::registers::control::{Cr4, Cr4Flags};

use super::instructions::{clgi, stgi, vmsave};
use crate::arch::cpuid::{self, Leaf};
use crate::arch::instructions;
use crate::arch::msr::{self, EFER_SVME};
use crate::debug::ending::{self, Hooks};

/// Why AMD-V cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unavailable {
    /// Firmware has switched AMD-V off and locked it.
    LockedOff,
    /// The CPU's AMD-V lacks these capabilities, which Vidar needs.
    Missing(Vec<&'static str>),
}

/// Returns the capabilities of this CPU's AMD-V. The CPU must have AMD-V.
///
/// # Errors
/// [`Unavailable`] if AMD-V is locked off, or if it lacks a capability that Vidar needs.
pub fn probe() -> Result<Capabilities, Unavailable> {
    if vm_cr() == Decision::LockedOff {
        return Err(Unavailable::LockedOff);
    }
    Capabilities::choose(features()).map_err(Unavailable::Missing)
}

/// The value of TSC_RATIO with which the guest's TSC is the CPU's: 1, with 32 bits after the binary point.
const TSC_RATIO_1: u64 = 1 << 32;
/// SYSCFG.MtrrFixDramModEn, which makes the RdMem and WrMem bits of the fixed-range MTRRs writable.
const SYSCFG_MODIFY_FIXED: u64 = 1 << 19;

/// Returns CPUID Fn8000_000A, a leaf that every CPU with AMD-V has.
fn features() -> Leaf {
    cpuid::cpuid(0x8000_000a, 0)
}

/// Returns what must be done about VM_CR. On a CPU without this MSR firmware cannot have switched AMD-V off.
fn vm_cr() -> Decision {
    decide(msr::read_checked(msr::VM_CR).unwrap_or(0), features())
}

/// Returns the bits of EFER that the guest may set on this CPU.
pub fn efer_allowed() -> u64 {
    efer::allowed(|leaf| cpuid::cpuid(leaf, 0))
}

/// Returns the bits of CR4 that the guest may set on this CPU.
pub fn cr4_allowed() -> u64 {
    let policy = Policy { features: Features::all(), hypervisor_bit: false, narrower: 0 };
    cr4::allowed(&policy, cpuid::cpuid)
}

/// Returns true if an intercepted INIT becomes an exception on this CPU once [`enable`] has set VM_CR.R_INIT. QEMU has
/// no such bit, and resets a boot CPU that gets an INIT although Vidar intercepts it. KVM has the bit, but it resets
/// that CPU after the exit nevertheless.
pub fn redirects_init() -> bool {
    !cpuid::has_hypervisor() && msr::read_checked(msr::VM_CR).is_ok_and(|value| value & R_INIT != 0)
}

/// Sets GIF if AMD-V is on, since GIF may then be 0: SMIs, and an INIT that is to reset the machine, would wait
/// forever. AMD APM Vol. 2, 15.17 "Global Interrupt Flag, STGI and CLGI Instructions".
pub fn leave() {
    if msr::read(msr::EFER) & EFER_SVME != 0 {
        // SAFETY: EFER.SVME is set, and Vidar's IDT was loaded before that.
        unsafe { stgi() };
    }
}

/// Prepares this CPU for VMRUN. `host_save` is the host state-save area, where the CPU saves the state of Vidar that
/// VMRUN switches. The rest of that state is saved in the VMCB at `host`. With `keeps_init`, an intercepted INIT stays
/// pending and becomes an exception; without it, an INIT resets the CPU as usual. GIF is 0 afterwards.
///
/// # Safety
/// This CPU has `capabilities`, as [`probe`] returns them. Its segments and per-CPU block are loaded, and nothing else
/// uses the two frames.
pub unsafe fn enable(capabilities: &Capabilities, host_save: Hpa, host: Hpa, keeps_init: bool) {
    ending::set_hooks(Hooks { before_halt: leave, before_reset: leave });
    // SAFETY: OSXSAVE changes nothing for code that does not use XSAVE. The MSRs that are written affect only the
    // guest, or are part of AMD-V, which the caller promises to be available. The caller also promises that nothing
    // else uses the frames.
    unsafe {
        if let Decision::Write(value) = vm_cr() {
            // QEMU has no VM_CR, so there the write fails, and nothing is lost by that.
            let value = if keeps_init { value } else { value & !R_INIT };
            let _ = msr::write_checked(msr::VM_CR, value);
        }
        if capabilities.tsc_ratio {
            msr::write(msr::TSC_RATIO, TSC_RATIO_1);
        }
        // If firmware has left the bit on, the guest could use the fixed-range MTRRs to direct accesses below 1 MiB
        // away from memory.
        if let Ok(value) = msr::read_checked(msr::SYSCFG)
            && value & SYSCFG_MODIFY_FIXED != 0
        {
            let _ = msr::write_checked(msr::SYSCFG, value & !SYSCFG_MODIFY_FIXED);
        }
        Cr4::update(|cr4| cr4.set(Cr4Flags::OSXSAVE, cpuid::has_xsave()));
        instructions::wbinvd();
        msr::write(msr::EFER, msr::read(msr::EFER) | EFER_SVME);
        msr::write(msr::VM_HSAVE_PA, host_save.0);
        vmsave(host);
        clgi();
    }
}
