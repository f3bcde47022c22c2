//! Runs a scenario so that an exception nobody expected ends it, and not the probe.

#![expect(unsafe_code, reason = "leaving a function from an exception takes its own frame")]

use core::arch::naked_asm;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::attempt::{Fault, RECOVERY};
use crate::frame::Frame;
use crate::gdt::{KERNEL_CODE, KERNEL_DATA};
use crate::line::Line;
use crate::{cpu, handlers};

/// Stack pointer inside [`enter`], 0 outside.
static STACK: AtomicU64 = AtomicU64::new(0);

/// An exception that ended a scenario, and where it was.
#[derive(Clone, Copy)]
pub struct Unexpected {
    /// The exception.
    pub fault: Fault,
    /// The instruction pointer that it pushed.
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

/// Calls `start(job)`; returns 0, or 1 if [`leave`] ended it.
///
/// # Safety
///
/// What is left half-way must own nothing that has to be dropped.
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

/// Runs the scenario.
pub fn run(scenario: fn(&mut Line), line: &mut Line) -> Result<(), Unexpected> {
    let mut job = Job { scenario, line };
    // SAFETY: `enter` keeps to the calling convention. A scenario that is left half-way owns nothing that would
    // have to be dropped, and `leave` puts the CPU's modes back.
    let ended = unsafe { enter(start, &mut job) };
    STACK.store(0, Relaxed);
    if ended == 0 {
        return Ok(());
    }
    RECOVERY.store(0, Relaxed);
    handlers::remove_all();
    cpu::clear_dr7();
    Err(Unexpected {
        fault: Fault { vector: VECTOR.load(Relaxed), error: ERROR.load(Relaxed) },
        rip: RIP.load(Relaxed),
    })
}

/// Makes the exception return to the end of [`run`].
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
