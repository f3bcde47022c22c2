//! Tries instructions that may fault, and returns the exception as a value.

#![expect(unsafe_code, reason = "the instructions under test exist only as assembly")]

use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::cpu;

/// The address at which the exception handler resumes while an instruction is tried, and 0 otherwise.
pub static RECOVERY: AtomicU64 = AtomicU64::new(0);
/// The vector of the last exception, or [`NO_FAULT`].
static VECTOR: AtomicU64 = AtomicU64::new(NO_FAULT);
/// The error code of the last exception.
static ERROR: AtomicU64 = AtomicU64::new(0);

const NO_FAULT: u64 = u64::MAX;

/// The result of an instruction, or the exception that it raised.
pub type Outcome<T = ()> = Result<T, Fault>;

/// An exception.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// The vector of the exception.
    pub vector: u64,
    /// The error code of the exception, or 0 if it has none.
    pub error: u64,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.vector {
            0 => "DE",
            1 => "DB",
            2 => "NMI",
            3 => "BP",
            4 => "OF",
            5 => "BR",
            6 => "UD",
            7 => "NM",
            8 => "DF",
            10 => "TS",
            11 => "NP",
            12 => "SS",
            13 => "GP",
            14 => "PF",
            16 => "MF",
            17 => "AC",
            18 => "MC",
            19 => "XM",
            20 => "VE",
            21 => "CP",
            other => return write!(f, "#{other:#x}"),
        };
        match self.vector {
            8 | 10..=14 | 17 | 21 => write!(f, "#{name}({:x})", self.error),
            _ => write!(f, "#{name}"),
        }
    }
}

/// Stores an exception, which [`taken`] then returns.
pub fn note(fault: Fault) {
    VECTOR.store(fault.vector, Relaxed);
    ERROR.store(fault.error, Relaxed);
}

/// Returns the exception that was stored since the last call, if there was one.
pub fn taken() -> Outcome {
    match VECTOR.swap(NO_FAULT, Relaxed) {
        NO_FAULT => Ok(()),
        vector => Err(Fault { vector, error: ERROR.load(Relaxed) }),
    }
}

/// Executes assembly that may fault, as `attempt!("instruction", "instruction"; operands of asm!)`.
///
/// After a fault, execution resumes after the last instruction with the registers as they were at the fault. So the
/// stack pointer must have its original value at every instruction that may fault.
macro_rules! attempt {
    ($($instruction:expr),+ $(; $($operand:tt)*)?) => {{
        // SAFETY: the exception handler resumes after the instructions, so they cannot end the probe, and the
        // scenario that names them restores what they change.
        unsafe {
            core::arch::asm!(
                "lea {attempt_scratch}, [rip + 99f]",
                "mov [rip + {attempt_recovery}], {attempt_scratch}",
                $($instruction,)+
                "99:",
                "mov qword ptr [rip + {attempt_recovery}], 0",
                attempt_scratch = out(reg) _,
                attempt_recovery = sym $crate::attempt::RECOVERY,
                $($($operand)*)?
            );
        }
        $crate::attempt::taken()
    }};
}
pub(crate) use attempt;

/// Formats the outcome of an instruction without a result: `ok`, or the exception.
pub struct Verdict(pub Outcome);

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Ok(()) => f.write_str("ok"),
            Err(fault) => fault.fmt(f),
        }
    }
}

/// Formats the outcome of an instruction with a result: the result in hexadecimal, or the exception.
pub struct Hex(pub Outcome<u64>);

impl fmt::Display for Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Ok(value) => write!(f, "{value:#x}"),
            Err(fault) => fault.fmt(f),
        }
    }
}

/// Executes RDMSR.
pub fn rdmsr(index: u32) -> Outcome<u64> {
    let (low, high): (u32, u32);
    attempt!("rdmsr"; in("ecx") index, inout("eax") 0 => low, inout("edx") 0 => high)?;
    Ok(u64::from(high) << 32 | u64::from(low))
}

/// Executes WRMSR.
pub fn wrmsr(index: u32, value: u64) -> Outcome {
    let (low, high) = (value as u32, (value >> 32) as u32);
    attempt!("wrmsr"; in("ecx") index, in("eax") low, in("edx") high)
}

/// Executes XSETBV.
pub fn xsetbv(index: u32, value: u64) -> Outcome {
    let (low, high) = (value as u32, (value >> 32) as u32);
    attempt!("xsetbv"; in("ecx") index, in("eax") low, in("edx") high)
}

/// Executes MOV to CR0.
pub fn set_cr0(value: u64) -> Outcome {
    attempt!("mov cr0, {value}"; value = in(reg) value)
}

/// Executes MOV to CR4.
pub fn set_cr4(value: u64) -> Outcome {
    attempt!("mov cr4, {value}"; value = in(reg) value)
}

/// Runs `body`, and then restores CR4.
pub fn keeping_cr4<T>(body: impl FnOnce() -> T) -> T {
    let before = cpu::cr4();
    let result = body();
    // This cannot fault: CR4 had this value before.
    let _ = set_cr4(before);
    result
}
