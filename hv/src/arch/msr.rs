//! RDMSR and WRMSR.

#![expect(unsafe_code, reason = "RDMSR and WRMSR are here")]

use core::arch::asm;

pub use vidar_core::x86::msr::*;

use super::fixup::fixup;

/// Reads an MSR that is known to exist; one that does not is a bug in Vidar and panics.
pub fn read(index: u32) -> u64 {
    match read_checked(index) {
        Ok(value) => value,
        Err(Fault) => panic!("RDMSR {index:#x} faulted"),
    }
}

/// Reads an MSR that may not exist.
///
/// # Errors
/// [`Fault`] where RDMSR gives #GP.
pub fn read_checked(index: u32) -> Result<u64, Fault> {
    let (low, high, done): (u32, u32, u32);
    // SAFETY: reading an MSR changes no memory, and the #GP of one that is not there is caught by the fix-up.
    unsafe {
        asm!(
            "xor {done:e}, {done:e}",
            "2: rdmsr",
            "mov {done:e}, 1",
            "3:",
            fixup!("2b", "3b"),
            done = out(reg) done,
            in("ecx") index,
            out("eax") low,
            out("edx") high,
            options(nostack),
        );
    }
    if done == 1 { Ok(u64::from(high) << 32 | u64::from(low)) } else { Err(Fault) }
}

/// Writes an MSR that is known to exist and to take `value`; #GP is a bug in Vidar and panics.
///
/// # Safety
/// The caller answers for what the MSR does with `value`.
pub unsafe fn write(index: u32, value: u64) {
    // SAFETY: the caller's promise is the same.
    if unsafe { write_checked(index, value) }.is_err() {
        panic!("WRMSR {index:#x} of {value:#x} faulted");
    }
}

/// Writes an MSR that may not exist or may not take `value`.
///
/// # Errors
/// [`Fault`] where WRMSR gives #GP; the MSR is then unchanged.
///
/// # Safety
/// The caller answers for what the MSR does with `value`.
pub unsafe fn write_checked(index: u32, value: u64) -> Result<(), Fault> {
    let done: u32;
    // SAFETY: the caller answers for the effect, and #GP is caught by the fix-up.
    unsafe {
        asm!(
            "xor {done:e}, {done:e}",
            "2: wrmsr",
            "mov {done:e}, 1",
            "3:",
            fixup!("2b", "3b"),
            done = out(reg) done,
            in("ecx") index,
            in("eax") value as u32,
            in("edx") (value >> 32) as u32,
            options(nostack),
        );
    }
    if done == 1 { Ok(()) } else { Err(Fault) }
}
