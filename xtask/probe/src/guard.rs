//! Runs a scenario in such a way that an unexpected exception ends the scenario, and not the probe.

#![expect(unsafe_code, reason = "an exception handler returns to another function than the one that was interrupted")]

use core::arch::naked_asm;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::attempt::{Fault, RECOVERY};
use crate::frame::Frame;
use crate::gdt::{KERNEL_CODE, KERNEL_DATA};
use crate::line::Line;
use crate::{cpu, handlers};

/// The stack pointer inside [`enter`], and 0 outside of it.
static STACK: AtomicU64 = AtomicU64::new(0);

/// An exception that ended a scenario, and the instruction that raised it.
#[derive(Clone, Copy)]
pub struct UnexpectedFault {
    /// The exception.
    pub fault: Fault,
    /// The instruction pointer that the CPU pushed.
    pub rip: u64,
}

static VECTOR: AtomicU64 = AtomicU64::new(0);
static ERROR: AtomicU64 = AtomicU64::new(0);
static RIP: AtomicU64 = AtomicU64::new(0);

struct Job<'a> {
    scenario: fn(&mut Line),
    line: &'a mut Line,
}

extern "C" fn start(job: &mut Job<'_>) {
    (job.scenario)(job.line);
}

/// Calls `start(job)`. Returns 0 if it returned, and 1 if [`leave`] ended it.
///
/// # Safety
///
/// `start` may be ended anywhere, so it must own nothing that has to be dropped.
#[unsafe(naked)]
unsafe extern "C" fn enter(start: extern "C" fn(&mut Job<'_>), job: &mut Job<'_>) -> u64 {
    naked_asm!(
        "push rbx",
        "push rbp",
        "push r12",
        "push r13",
        "push r14",
        "push r15",
        "sub rsp, 8",
        "mov [rip + {stack}], rsp",
        "mov rax, rdi",
        "mov rdi, rsi",
        "call rax",
        "xor eax, eax",
        "jmp 3f",
        ".globl probe_guard_landing",
        "probe_guard_landing:",
        "mov eax, 1",
        "3:",
        "add rsp, 8",
        "pop r15",
        "pop r14",
        "pop r13",
        "pop r12",
        "pop rbp",
        "pop rbx",
        "ret",
        stack = sym STACK,
    )
}

unsafe extern "C" {
    static probe_guard_landing: u8;
}

/// Runs the scenario. Returns the exception that ended it, if one did.
pub fn run(scenario: fn(&mut Line), line: &mut Line) -> Result<(), UnexpectedFault> {
    let mut job = Job { scenario, line };
    // SAFETY: `enter` keeps to the calling convention. Scenarios own nothing that would have to be dropped, and `leave`
    // resumes in 64-bit mode at CPL 0.
    let ended = unsafe { enter(start, &mut job) };
    STACK.store(0, Relaxed);
    if ended == 0 {
        return Ok(());
    }
    RECOVERY.store(0, Relaxed);
    handlers::remove_all();
    cpu::clear_dr7();
    Err(UnexpectedFault {
        fault: Fault { vector: VECTOR.load(Relaxed), error: ERROR.load(Relaxed) },
        rip: RIP.load(Relaxed),
    })
}

/// Ends the scenario: changes the frame so that the exception handler returns to the end of [`enter`].
pub fn leave(frame: &mut Frame, fault: Fault) {
    let stack = STACK.load(Relaxed);
    if stack == 0 {
        crate::serial::say!("probe: {fault} outside of a scenario at {:#x}", frame.rip);
        cpu::halt();
    }
    VECTOR.store(fault.vector, Relaxed);
    ERROR.store(fault.error, Relaxed);
    RIP.store(frame.rip, Relaxed);
    frame.rip = &raw const probe_guard_landing as u64;
    frame.cs = u64::from(KERNEL_CODE);
    frame.rsp = stack;
    frame.ss = u64::from(KERNEL_DATA);
    frame.rflags = 2;
}
