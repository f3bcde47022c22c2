//! Turning AMD-V on: what the CPU can do, firmware's lock, EFER.SVME, the host's state-save area.

#![expect(unsafe_code, reason = "MSRs and control registers are written")]

use alloc::vec::Vec;

use vidar_core::mem::addr::Hpa;
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
    /// Firmware has switched it off.
    LockedOff,
    /// The CPU's lacks what Vidar needs: these.
    Missing(Vec<&'static str>),
}

/// What this CPU's AMD-V can do; it has it.
///
/// # Errors
/// [`Unavailable`] where it is switched off or not enough.
pub fn probe() -> Result<Capabilities, Unavailable> {
    if vm_cr() == Decision::LockedOff {
        return Err(Unavailable::LockedOff);
    }
    Capabilities::choose(features()).map_err(Unavailable::Missing)
}

/// TSC_RATIO: the guest's TSC is the CPU's. 32 bits before the point, and 32 after it.
const TSC_RATIO_1: u64 = 1 << 32;
/// SYSCFG.MtrrFixDramModEn.
const SYSCFG_MODIFY_FIXED: u64 = 1 << 19;

/// CPUID Fn8000_000A, which a CPU with AMD-V has.
fn features() -> Leaf {
    cpuid::cpuid(0x8000_000a, 0)
}

/// A CPU without VM_CR has nothing to switch off.
fn vm_cr() -> Decision {
    decide(msr::read_checked(msr::VM_CR).unwrap_or(0), features())
}

/// The bits of EFER that this CPU lets the guest set.
pub fn efer_allowed() -> u64 {
    efer::allowed(|leaf| cpuid::cpuid(leaf, 0))
}

/// Sets GIF, if this CPU can have it at 0: SMIs, an INIT and the reset that may come by it would wait for ever. AMD APM Vol. 2,
/// 15.17 "Global Interrupt Flag, STGI and CLGI Instructions".
pub fn leave() {
    if msr::read(msr::EFER) & EFER_SVME != 0 {
        // SAFETY: SVME is set, and exceptions have been caught for longer.
        unsafe { stgi() };
    }
}

/// Makes this CPU one that can execute VMRUN: `host_save` is where the CPU keeps what VMRUN switches of Vidar's state,
/// `host` where it finds the rest again. With `keeps_init` an INIT that was intercepted can be taken off it as an exception,
/// without it is a real one. GIF is 0 afterwards.
///
/// # Safety
/// [`probe`] found `capabilities` here; segments and the per-CPU block are loaded; the two frames are used for nothing else.
pub unsafe fn enable(capabilities: &Capabilities, host_save: Hpa, host: Hpa, keeps_init: bool) {
    ending::set_hooks(Hooks { before_halt: leave, before_reset: leave });
    // SAFETY: OSXSAVE changes nothing for code that does not use XSAVE; the frames are the caller's promise.
    unsafe {
        if let Decision::Write(value) = vm_cr() {
            // QEMU has no VM_CR, and then no firmware's lock in it either.
            let value = if keeps_init { value } else { value & !R_INIT };
            let _ = msr::write_checked(msr::VM_CR, value);
        }
        if capabilities.tsc_ratio {
            msr::write(msr::TSC_RATIO, TSC_RATIO_1);
        }
        // Where firmware has left it on, the guest could say of the first MiB by its MTRRs that it is no memory.
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
