//! Measures the cost of an exit, in ticks of the time-stamp counter.

#![expect(unsafe_code, reason = "the instructions that are measured exist only as assembly")]

use core::arch::asm;
use core::fmt::{self, Display};

use vidar_abi::Call;

use super::quiet::{Exits, timer};
use crate::attempt::Outcome;
use crate::line::Line;
use crate::{cpu, vidar};

const ROUNDS: u64 = 10_000;

const TIMER_INTERRUPTS: u16 = 1000;

/// The port of the power-on self-test codes. Reading it has no effect.
const PORT: u16 = 0x80;

struct Measurement {
    min: u64,
    sum: u64,
}

impl Display for Measurement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hundredths = self.sum * 100 / ROUNDS;
        write!(f, "min={} mean={}.{:02}", self.min, hundredths / 100, hundredths % 100)
    }
}

/// Repeats a measurement, and returns the minimum and the sum.
fn measure(ticks: impl Fn() -> u64) -> Measurement {
    let mut result = Measurement { min: u64::MAX, sum: 0 };
    for _ in 0..ROUNDS {
        let ticks = ticks();
        result.min = result.min.min(ticks);
        result.sum += ticks;
    }
    result
}

/// Measures the ticks from one RDTSC to another, with the instruction between them. Two MOV are between them as well:
/// one keeps the first result, and the other loads RAX. So a measurement without an instruction is 3 where each
/// instruction takes one tick.
macro_rules! ticks {
    ($($instruction:literal)?, $rax:expr $(, $($operand:tt)*)?) => {
        measure(|| {
            let (start, end): (u32, u32);
            // SAFETY: the instruction only reads, or writes to a register the value that it has.
            unsafe {
                asm!(
                    "mov r12, rbx",
                    ".balign 64", // so that all that is measured lies in one page
                    "rdtsc",
                    "mov r8d, eax",
                    "mov rax, r9",
                    $($instruction,)?
                    "rdtsc",
                    "mov rbx, r12",
                    in("r9") $rax,
                    lateout("r8") start,
                    lateout("rax") end,
                    lateout("rcx") _,
                    lateout("rdx") _,
                    lateout("rsi") _,
                    lateout("rdi") _,
                    lateout("r9") _,
                    lateout("r10") _,
                    lateout("r11") _,
                    lateout("r12") _,
                    $($($operand)*)?
                );
            }
            u64::from(end.wrapping_sub(start))
        })
    };
}

/// Measures exits to Vidar, then operations that must not exit, each with the number of exits that it caused all the
/// same.
pub fn bench(line: &mut Line) {
    let vidar = vidar::present();
    line.word(format_args!("empty {}", ticks!(, 0_u64)));
    // A leaf that a hypervisor has no reason to change.
    line.word(format_args!("cpuid {}", ticks!("cpuid", 0x8000_0000_u64)));
    if vidar {
        let number = Call::Version as u64;
        let measured =
            if vidar::amd() { ticks!("vmmcall", number) } else { ticks!("vmcall", number) };
        line.word(format_args!("vmcall {measured}"));
    } else {
        line.word("vmcall none");
    }
    quietly(line, "port", || Ok(ticks!("in al, dx", 0_u64, in("rdx") u64::from(PORT))));
    quietly(line, "cr3", || Ok(ticks!("mov cr3, rax", cpu::cr3())));
    if let Err(fault) = system_call::measure(line) {
        line.word(format_args!("syscall {fault}"));
    }
    let (taken, exits) = timer(TIMER_INTERRUPTS);
    line.word(format_args!("timer taken={taken}/{TIMER_INTERRUPTS} exits={exits}"));
}

/// Executes one CPUID and one hypercall between marks, at which an emulator can begin and end a list of the
/// instructions that it executes. Both are executed once before without marks, so that the list has nothing that
/// happens only the first time.
pub fn price(line: &mut Line) {
    let number = Call::Version as u64;
    for round in 0..2 {
        // SAFETY: CPUID and the hypercall only read, and the mark does nothing.
        unsafe {
            macro_rules! traced {
                ($hypercall:literal) => {
                    asm!(
                        "mov r12, rbx",
                        "test r11d, r11d",
                        "jz 2f",
                        "xchg bx, bx",
                        "2: cpuid",
                        "mov rax, r9",
                        "test r11d, r11d",
                        "jz 3f",
                        "xchg bx, bx",
                        concat!("3: ", $hypercall),
                        "test r11d, r11d",
                        "jz 4f",
                        "xchg bx, bx",
                        "4: mov rbx, r12",
                        inlateout("rax") 0x8000_0000_u64 => _,
                        in("r9") number,
                        in("r11") round,
                        lateout("rcx") _,
                        lateout("rdx") _,
                        lateout("rsi") _,
                        lateout("rdi") _,
                        lateout("r8") _,
                        lateout("r10") _,
                        lateout("r12") _,
                    )
                };
            }
            if vidar::amd() {
                traced!("vmmcall");
            } else {
                traced!("vmcall");
            }
        }
    }
    line.word("done");
}

/// Adds the result of a measurement, and the number of exits during it.
fn quietly(line: &mut Line, name: &str, measured: impl FnOnce() -> Outcome<Measurement>) {
    let mut result = None;
    let exits = Exits::of(|| result = Some(measured()));
    match result {
        Some(Ok(result)) => line.word(format_args!("{name} {result} exits={exits}")),
        Some(Err(fault)) => line.word(format_args!("{name} {fault}")),
        None => {}
    }
}

/// Measures SYSCALL at CPL 3, with a handler that executes SYSRET at once.
mod system_call {
    use core::arch::naked_asm;

    use super::{Measurement, ROUNDS};
    use crate::attempt::{Outcome, rdmsr, wrmsr};
    use crate::gdt::{KERNEL_CODE, USER_DATA};
    use crate::line::Line;
    use crate::user;

    const IA32_EFER: u32 = 0xc000_0080;
    const EFER_SCE: u64 = 1 << 0;
    const IA32_STAR: u32 = 0xc000_0081;
    const IA32_LSTAR: u32 = 0xc000_0082;
    const IA32_FMASK: u32 = 0xc000_0084;

    #[unsafe(naked)]
    extern "C" fn kernel() {
        naked_asm!("sysretq")
    }

    /// Measures as at CPL 0, but in registers only. At the end RAX has the minimum in its high half and the sum in its
    /// low half.
    #[unsafe(naked)]
    extern "C" fn at_cpl3() {
        naked_asm!(
            "mov r12d, {rounds}",
            "mov r13d, 0xffffffff",
            "xor r14d, r14d",
            "2:",
            "rdtsc",
            "mov r8d, eax",
            "mov rax, r9",
            "syscall",
            "rdtsc",
            "sub eax, r8d",
            "cmp eax, r13d",
            "cmovb r13d, eax",
            "add r14d, eax",
            "dec r12d",
            "jnz 2b",
            "mov rax, r13",
            "shl rax, 32",
            "or rax, r14",
            "int 0x80",
            rounds = const ROUNDS,
        )
    }

    /// Sets up SYSCALL and measures it.
    pub fn measure(line: &mut Line) -> Outcome {
        let efer = rdmsr(IA32_EFER)?;
        // SYSRET adds 8 to this selector for the stack segment, and 16 for the code segment.
        wrmsr(IA32_STAR, u64::from(USER_DATA - 8) << 48 | u64::from(KERNEL_CODE) << 32)?;
        wrmsr(IA32_LSTAR, kernel as *const () as u64)?;
        wrmsr(IA32_FMASK, 0)?;
        wrmsr(IA32_EFER, efer | EFER_SCE)?;
        super::quietly(line, "syscall", || {
            // SAFETY: `at_cpl3` uses no stack, writes only registers and ends with INT 0x80, and `kernel` returns at
            // once.
            let result = unsafe { user::visit(at_cpl3 as *const () as u64, 0) };
            result.map(|result| Measurement { min: result >> 32, sum: result & 0xffff_ffff })
        });
        wrmsr(IA32_EFER, efer)
    }
}
