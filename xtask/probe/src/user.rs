//! Visits to CPL 3.

#![expect(unsafe_code, reason = "changing the privilege level takes assembly")]

use core::arch::naked_asm;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::attempt::{self, Outcome};
use crate::frame::Frame;
use crate::gdt::{KERNEL_CODE, KERNEL_DATA, USER_CODE, USER_DATA};

/// The vector of the software interrupt by which code at CPL 3 ends its visit.
pub const RETURN: u64 = 0x80;

/// The stack pointer inside [`enter`].
static STACK: AtomicU64 = AtomicU64::new(0);

/// Jumps to `code` at CPL 3, with `rax` in RAX and without a stack. Returns the value of RAX when the visit ends.
///
/// # Safety
///
/// As for [`visit`].
#[unsafe(naked)]
unsafe extern "C" fn enter(code: u64, rax: u64) -> u64 {
    naked_asm!(
        "push rbx",
        "push rbp",
        "push r12",
        "push r13",
        "push r14",
        "push r15",
        "mov [rip + {stack}], rsp",
        "push {user_data}",
        "push 0",
        "push 2",
        "push {user_code}",
        "push rdi",
        "mov rax, rsi",
        "iretq",
        ".globl probe_user_landing",
        "probe_user_landing:",
        "mov ecx, {kernel_data}",
        "mov ds, ecx",
        "mov es, ecx",
        "pop r15",
        "pop r14",
        "pop r13",
        "pop r12",
        "pop rbp",
        "pop rbx",
        "ret",
        stack = sym STACK,
        user_data = const USER_DATA,
        user_code = const USER_CODE,
        kernel_data = const KERNEL_DATA,
    )
}

unsafe extern "C" {
    static probe_user_landing: u8;
}

/// Runs the code at CPL 3 until its INT 0x80 or its exception. Returns the value of RAX after INT 0x80, or the
/// exception.
///
/// # Safety
///
/// `code` must be the address of instructions that use no stack, write only registers, and end with INT 0x80.
pub unsafe fn visit(code: u64, rax: u64) -> Outcome<u64> {
    // SAFETY: the caller guarantees what the code does. CPL 3 may access every page, and the dispatcher ends the visit
    // by `leave`.
    let rax = unsafe { enter(code, rax) };
    attempt::taken().map(|()| rax)
}

/// Ends the visit: changes the frame so that the handler returns to the end of [`enter`].
pub fn leave(frame: &mut Frame) {
    frame.rip = &raw const probe_user_landing as u64;
    frame.cs = u64::from(KERNEL_CODE);
    frame.rsp = STACK.load(Relaxed);
    frame.ss = u64::from(KERNEL_DATA);
    frame.rflags = 2;
}
