//! The hypercalls, by which a guest asks Vidar.

#![expect(unsafe_code, reason = "hypercalls are instructions")]

use core::sync::atomic::{AtomicU8, Ordering::Relaxed};

use vidar_abi::{Call, MAGIC, Status};

use crate::attempt::{Outcome, attempt};
use crate::cpu;

/// The registers after a call.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    pub rax: u64,
    pub rbx: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rsi: u64,
    pub rdi: u64,
}

/// Returns true on an AMD CPU, where the hypercall instruction is VMMCALL. The answer is kept, since CPUID exits.
pub fn amd() -> bool {
    static AMD: AtomicU8 = AtomicU8::new(2);
    if AMD.load(Relaxed) == 2 {
        let [_, ebx, _, _] = cpu::cpuid(0, 0);
        AMD.store((ebx == u32::from_le_bytes(*b"Auth")).into(), Relaxed);
    }
    AMD.load(Relaxed) == 1
}

/// Makes a call, with 0 in RSI and RDI.
pub fn call(number: u64, rbx: u64, rcx: u64, rdx: u64) -> Outcome<Answer> {
    call_for_words(number, rbx, rcx, rdx).map(|(answer, _)| answer)
}

/// Makes a call, with 0 in RSI and RDI. Returns R8 to R11 as well.
fn call_for_words(number: u64, rbx: u64, rcx: u64, rdx: u64) -> Outcome<(Answer, [u64; 4])> {
    let mut answer = Answer { rax: number, rbx, rcx, rdx, rsi: 0, rdi: 0 };
    let mut words = [0_u64; 4];
    macro_rules! with {
        ($instruction:literal) => {
            attempt!(
                "xchg rbx, {rbx}", $instruction, "99:", "xchg rbx, {rbx}";
                rbx = inout(reg) answer.rbx,
                inout("rax") answer.rax,
                inout("rcx") answer.rcx,
                inout("rdx") answer.rdx,
                inout("rsi") answer.rsi,
                inout("rdi") answer.rdi,
                out("r8") words[0], out("r9") words[1], out("r10") words[2], out("r11") words[3],
            )?
        };
    }
    if amd() { with!("vmmcall") } else { with!("vmcall") }
    Ok((answer, words))
}

/// Calls `each` with each byte of Vidar's log.
pub fn read_log(mut each: impl FnMut(u8)) {
    let mut position = 0;
    while let Ok((answer, words)) = call_for_words(Call::Log as u64, position, 0, 0)
        && answer.rax == Status::Ok as u64
        && answer.rcx > 0
    {
        let bytes = words.into_iter().flat_map(u64::to_le_bytes);
        bytes.take(answer.rcx as usize).for_each(&mut each);
        position = answer.rbx + answer.rcx;
    }
}

/// Returns true if the probe runs under Vidar. A call finds this out, since CPUID shows Vidar only if a boot option
/// says so.
pub fn present() -> bool {
    call(Call::Version as u64, 0, 0, 0).is_ok_and(|answer| answer.rax == 0 && answer.rbx == MAGIC)
}

/// Returns the base and the size of Vidar's region of memory.
pub fn region() -> Option<(u64, u64)> {
    let answer = call(Call::Status as u64, 0, 0, 0).ok()?;
    (answer.rax == Status::Ok as u64).then_some((answer.rbx, answer.rcx))
}

/// Returns the number of exits of all kinds so far, including the one of this call.
pub fn exits() -> Option<u64> {
    let answer = call(Call::Status as u64, 0, 0, 0).ok()?;
    (answer.rax == Status::Ok as u64).then_some(answer.rdi)
}
