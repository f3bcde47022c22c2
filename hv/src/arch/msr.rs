//! RDMSR and WRMSR.

#![expect(unsafe_code, reason = "RDMSR and WRMSR are here")]

pub use vidar_core::x86::msr::*;

use super::fixup::execute_checked;

/// Returns the value of an MSR that is known to exist. If RDMSR raises #GP, that is a bug in Vidar, and this function
/// panics.
pub fn read(index: u32) -> u64 {
    match read_checked(index) {
        Ok(value) => value,
        Err(Fault) => panic!("RDMSR {index:#x} faulted"),
    }
}

/// Returns the value of an MSR that may not exist.
///
/// # Errors
/// [`Fault`] where RDMSR raises #GP.
pub fn read_checked(index: u32) -> Result<u64, Fault> {
    let (low, high): (u32, u32);
    // SAFETY: reading an MSR changes no memory, and the fix-up catches the #GP of one that does not exist.
    let succeeded = unsafe {
        execute_checked!(
            "rdmsr",
            in("ecx") index,
            out("eax") low,
            out("edx") high,
            options(nostack),
        )
    };
    if succeeded { Ok(u64::from(high) << 32 | u64::from(low)) } else { Err(Fault) }
}

/// Writes `value` to an MSR that is known to exist and to accept it. If WRMSR raises #GP, that is a bug in Vidar, and
/// this function panics.
///
/// # Safety
/// Whatever the MSR does with `value`, it does not break Vidar's own code or data.
pub unsafe fn write(index: u32, value: u64) {
    // SAFETY: this function's caller promises the same that `write_checked` asks for: the MSR may have `value`.
    if unsafe { write_checked(index, value) }.is_err() {
        panic!("WRMSR {index:#x} of {value:#x} faulted");
    }
}

/// Writes `value` to an MSR that may not exist or may not accept it.
///
/// # Errors
/// [`Fault`] where WRMSR raises #GP; the MSR is then unchanged.
///
/// # Safety
/// Whatever the MSR does with `value`, it does not break Vidar's own code or data.
pub unsafe fn write_checked(index: u32, value: u64) -> Result<(), Fault> {
    // SAFETY: the caller promises that the effect of `value` does not break Vidar, and the fix-up catches #GP.
    let succeeded = unsafe {
        execute_checked!(
            "wrmsr",
            in("ecx") index,
            in("eax") value as u32,
            in("edx") (value >> 32) as u32,
            options(nostack),
        )
    };
    if succeeded { Ok(()) } else { Err(Fault) }
}
