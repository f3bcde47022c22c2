//! The instructions that a program needs to talk to Vidar.

#![expect(unsafe_code, reason = "hypercalls are instructions, and signals come from libc")]

use std::arch::asm;
use std::arch::x86_64::{__cpuid, _rdtsc};
use std::sync::Once;

use vidar_abi::SIGNATURE_LEAF;

use crate::failure::NOT_UNDER_VIDAR;

/// The registers that a hypercall takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    pub rax: u64,
    pub rbx: u64,
    pub rcx: u64,
}

/// The registers that a hypercall returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Answer {
    pub rax: u64,
    pub rbx: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rsi: u64,
    pub rdi: u64,
    pub r8_to_r11: [u64; 4],
}

/// Makes a hypercall.
///
/// Without a hypervisor the instruction raises #UD. The program then prints that it does not run under Vidar, and ends. Other
/// hypervisors take hypercalls only from the kernel: most of them return an error in RAX, and some raise an exception, which
/// ends the program in the same way.
pub fn call(request: Request) -> Answer {
    static PREPARE: Once = Once::new();
    PREPARE.call_once(end_on_refusal);
    let Request { rax, rbx, rcx } = request;
    let mut answer = Answer { rax, rbx, rcx, ..Answer::default() };
    macro_rules! with {
        ($instruction:literal) => {
            // SAFETY: the ABI names these registers and no others, and no call writes to memory. RBX is not an
            // operand of inline assembly, so it is swapped in and out.
            unsafe {
                asm!(
                    "xchg rbx, {rbx}",
                    $instruction,
                    "xchg rbx, {rbx}",
                    rbx = inout(reg) answer.rbx,
                    inout("rax") answer.rax,
                    inout("rcx") answer.rcx,
                    inout("rdx") answer.rdx,
                    inout("rsi") answer.rsi,
                    inout("rdi") answer.rdi,
                    out("r8") answer.r8_to_r11[0],
                    out("r9") answer.r8_to_r11[1],
                    out("r10") answer.r8_to_r11[2],
                    out("r11") answer.r8_to_r11[3],
                    options(nostack),
                );
            }
        };
    }
    if amd() {
        with!("vmmcall");
    } else {
        with!("vmcall");
    }
    answer
}

/// Returns the signature of the hypervisor, if CPUID shows that there is one.
pub fn hypervisor() -> Option<[u8; 12]> {
    if __cpuid(1).ecx >> 31 == 0 {
        return None;
    }
    let leaf = __cpuid(SIGNATURE_LEAF);
    let mut signature = [0; 12];
    for (bytes, register) in signature.chunks_exact_mut(4).zip([leaf.ebx, leaf.ecx, leaf.edx]) {
        bytes.copy_from_slice(&register.to_le_bytes());
    }
    Some(signature)
}

/// Returns the time-stamp counter.
pub fn tsc() -> u64 {
    // SAFETY: every 64-bit CPU has RDTSC, and Linux allows programs to execute it.
    unsafe { _rdtsc() }
}

/// Returns true if the hypercall instruction of this CPU is VMMCALL. The answer is kept, since each CPUID is an exit.
fn amd() -> bool {
    static AMD: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
    *AMD.get_or_init(|| {
        let vendor = __cpuid(0).ebx;
        vendor == u32::from_le_bytes(*b"Auth") || vendor == u32::from_le_bytes(*b"Hygo")
    })
}

/// Makes #UD and #GP, which arrive as SIGILL and SIGSEGV, end the program with a sentence.
fn end_on_refusal() {
    extern "C" fn handler(_: libc::c_int) {
        for text in ["vidarctl: ", NOT_UNDER_VIDAR, "\n"] {
            // SAFETY: write and _exit may be called in a signal handler, and the text is static.
            unsafe { libc::write(libc::STDERR_FILENO, text.as_ptr().cast(), text.len()) };
        }
        // SAFETY: _exit may be called in a signal handler.
        unsafe { libc::_exit(1) };
    }
    for signal in [libc::SIGILL, libc::SIGSEGV] {
        // SAFETY: the handler calls only what a signal handler may.
        unsafe { libc::signal(signal, handler as extern "C" fn(libc::c_int) as libc::sighandler_t) };
    }
}
