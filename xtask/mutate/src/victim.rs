//! Executes bytes that may be any instruction: restores registers and stack, and catches signals.

#![expect(unsafe_code, reason = "unknown instructions are executed, and their signals handled")]

use std::arch::asm;
use std::mem::zeroed;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};

/// The outcome of an instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was executed.
    Executed,
    /// It raised this signal.
    Signal(i32),
}

/// The address at which the signal handler resumes.
static RECOVERY: AtomicU64 = AtomicU64::new(0);
/// The stack pointer at that address.
static STACK: AtomicU64 = AtomicU64::new(0);
/// The signal that was caught, or 0.
static SIGNAL: AtomicI32 = AtomicI32::new(0);

/// The signals that an instruction can raise.
const SIGNALS: [i32; 5] = [libc::SIGILL, libc::SIGSEGV, libc::SIGBUS, libc::SIGTRAP, libc::SIGFPE];

/// Catches these signals in all threads.
pub fn catch_signals() -> Result<(), String> {
    for signal in SIGNALS {
        // SAFETY: zero is a valid value of all fields, and the handler has the type that SA_SIGINFO requires.
        let result = unsafe {
            let mut action: libc::sigaction = zeroed();
            action.sa_sigaction = handle as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER;
            libc::sigaction(signal, &raw const action, null_mut())
        };
        if result != 0 {
            return Err(format!("cannot catch signal {signal}"));
        }
    }
    Ok(())
}

/// Gives this thread a stack for signal handlers, since an instruction may leave any value in RSP.
pub fn own_signal_stack() -> Result<(), String> {
    const BYTES: usize = 64 << 10;
    let memory = Box::leak(vec![0_u8; BYTES].into_boxed_slice());
    let stack = libc::stack_t { ss_sp: memory.as_mut_ptr().cast(), ss_flags: 0, ss_size: BYTES };
    // SAFETY: the memory is never freed, and nothing else uses it.
    let result = unsafe { libc::sigaltstack(&raw const stack, null_mut()) };
    if result == 0 { Ok(()) } else { Err("cannot set the stack for signal handlers".to_owned()) }
}

/// Handles a signal: resumes after the call of the instruction, as if the call had returned.
extern "C" fn handle(signal: i32, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    SIGNAL.store(signal, Ordering::Relaxed);
    // SAFETY: the kernel passes a pointer to the context of this thread, which nothing else uses.
    let registers = unsafe { &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs };
    registers[libc::REG_RIP as usize] = RECOVERY.load(Ordering::Relaxed) as i64;
    registers[libc::REG_RSP as usize] = STACK.load(Ordering::Relaxed) as i64;
    registers[libc::REG_EFL as usize] &= !(1 << 10);
}

/// Calls the instruction at `place`, which RET follows. Only one thread may do so at a time.
pub fn execute(place: usize) -> Outcome {
    SIGNAL.store(0, Ordering::Relaxed);
    // SAFETY: registers and stack are restored, and signals are caught. The instruction cannot write to memory of this
    // program: but for RSP, the registers that it could use for an address hold 0, or an address that is not writable.
    unsafe {
        asm!(
            "push rbx",
            "push rbp",
            "lea rax, [rip + 2f]",
            "mov [rip + {recovery}], rax",
            "mov [rip + {stack}], rsp",
            "xor eax, eax",
            "xor ecx, ecx",
            "xor edx, edx",
            "xor ebx, ebx",
            "xor ebp, ebp",
            "xor esi, esi",
            "call rdi",
            "2:",
            "pop rbp",
            "pop rbx",
            recovery = sym RECOVERY,
            stack = sym STACK,
            inout("rdi") place => _,
            out("rax") _, out("rcx") _, out("rdx") _, out("rsi") _,
            out("r8") _, out("r9") _, out("r10") _, out("r11") _, out("r12") _, out("r13") _, out("r14") _, out("r15") _,
            clobber_abi("C"),
        );
    }
    match SIGNAL.load(Ordering::Relaxed) {
        0 => Outcome::Executed,
        signal => Outcome::Signal(signal),
    }
}
