//! The instructions that a program needs to talk to Vidar.

#![expect(unsafe_code, reason = "hypercalls are instructions, and signals come from libc")]

use std::arch::asm;
use std::arch::x86_64::{__cpuid, _rdtsc};
use std::io;
use std::sync::Once;

use vidar_abi::SIGNATURE_LEAF;

/// What RAX returns if nobody has taken the hypercall. It is the status of no answer.
const NO_ANSWER: u64 = u64::MAX;

/// The registers that a hypercall takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    pub rax: u64,
    pub rbx: u64,
    pub rcx: u64,
}

/// The registers that a hypercall returns. The assembly of [`call`] knows their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Answer {
    pub rax: u64,
    pub rbx: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rsi: u64,
    pub rdi: u64,
    pub r8_to_r15: [u64; 8],
}

/// Makes a hypercall.
///
/// Without a hypervisor the instruction raises #UD, and RAX is [`NO_ANSWER`]. Other hypervisors take hypercalls only
/// from the kernel: most of them return an error in RAX, and some raise an exception, to which the answer is the same.
pub fn call(request: Request) -> Answer {
    static PREPARE: Once = Once::new();
    PREPARE.call_once(survive_refusal);
    let Request { rax, rbx, rcx } = request;
    let mut answer = Answer { rax, rbx, rcx, ..Answer::default() };
    macro_rules! with {
        ($instruction:literal) => {
            // SAFETY: the ABI names these registers and no others, and no call writes to memory. RBX is not an operand
            // of inline assembly, and no register is left for an address, so the stack keeps RBX and the address of the
            // registers during the call.
            unsafe {
                asm!(
                    "push rbx",
                    "push rdi",
                    "mov rax, [rdi]",
                    "mov rbx, [rdi + 8]",
                    "mov rcx, [rdi + 16]",
                    "xor edi, edi",
                    $instruction,
                    "xchg rdi, [rsp]",
                    "mov [rdi], rax",
                    "mov [rdi + 8], rbx",
                    "mov [rdi + 16], rcx",
                    "mov [rdi + 24], rdx",
                    "mov [rdi + 32], rsi",
                    "pop [rdi + 40]",
                    "mov [rdi + 48], r8",
                    "mov [rdi + 56], r9",
                    "mov [rdi + 64], r10",
                    "mov [rdi + 72], r11",
                    "mov [rdi + 80], r12",
                    "mov [rdi + 88], r13",
                    "mov [rdi + 96], r14",
                    "mov [rdi + 104], r15",
                    "pop rbx",
                    inout("rdi") &raw mut answer => _,
                    out("rax") _, out("rcx") _, inout("rdx") 0_u64 => _, inout("rsi") 0_u64 => _,
                    out("r8") _, out("r9") _, out("r10") _, out("r11") _,
                    out("r12") _, out("r13") _, out("r14") _, out("r15") _,
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

/// Asks Linux for the right to use the I/O port that resets the machine. Vidar takes the calls that do more than count
/// only from a program that has it. The port itself is not used.
pub fn allow_reset() -> io::Result<()> {
    /// The reset control register of the chip set.
    const PORT: libc::c_ulong = 0xcf9;
    // SAFETY: the system call changes only which I/O ports this program may use.
    match unsafe { libc::syscall(libc::SYS_ioperm, PORT, 1 as libc::c_ulong, 1) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
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

/// The encodings of VMCALL and VMMCALL.
const INSTRUCTIONS: [[u8; 3]; 2] = [[0x0f, 0x01, 0xc1], [0x0f, 0x01, 0xd9]];

/// Makes a hypercall that raises #UD or #GP, which arrive as SIGILL and SIGSEGV, return [`NO_ANSWER`]. The same signal
/// at another instruction ends the program as usual.
fn survive_refusal() {
    extern "C" fn handler(signal: libc::c_int, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
        // SAFETY: the kernel passes the context of the instruction. Nothing else refers to it, and the handler may
        // change its registers. RIP points to an instruction that the CPU has read, so it can be read here; after a
        // jump to where nothing is, this read faults while the signal is blocked, and the kernel ends the program.
        unsafe {
            let registers = &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs;
            let at = registers[libc::REG_RIP as usize];
            if INSTRUCTIONS.contains(&(at as *const [u8; 3]).read_unaligned()) {
                registers[libc::REG_RIP as usize] = at + 3;
                registers[libc::REG_RAX as usize] = NO_ANSWER as i64;
            } else {
                libc::signal(signal, libc::SIG_DFL);
            }
        }
    }
    for signal in [libc::SIGILL, libc::SIGSEGV] {
        // SAFETY: all fields of the structure may be zero. The handler calls only what a signal handler may.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = handler as extern "C" fn(_, _, _) as libc::sighandler_t;
            action.sa_flags = libc::SA_SIGINFO;
            libc::sigaction(signal, &raw const action, std::ptr::null_mut());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_assembly_knows_where_the_registers_of_an_answer_are() {
        use std::mem::offset_of;
        let offsets = [
            offset_of!(Answer, rax),
            offset_of!(Answer, rbx),
            offset_of!(Answer, rcx),
            offset_of!(Answer, rdx),
        ];
        assert_eq!(offsets, [0, 8, 16, 24]);
        let offsets = [offset_of!(Answer, rsi), offset_of!(Answer, rdi), offset_of!(Answer, r8_to_r15)];
        assert_eq!(offsets, [32, 40, 48]);
    }

    #[test]
    fn a_refused_hypercall_has_no_answer() {
        // Where the tests run there is no hypervisor, or another one than Vidar, which gives an error.
        let answer = call(Request { rax: 0, rbx: 1, rcx: 2 });
        assert_ne!(answer.rbx, vidar_abi::MAGIC);
        assert_ne!(answer.rax, 0);
    }
}
