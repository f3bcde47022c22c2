//! UMONITOR, UMWAIT and TPAUSE at CPL 0 and at CPL 3. They wait until a time that has passed or comes soon. On VT-x
//! they exist only if a VM-execution control is set.

#![expect(unsafe_code, reason = "the instructions under test exist only as assembly")]

use core::arch::naked_asm;

use super::quiet::Exits;
use crate::attempt::{Hex, Outcome, Verdict, attempt, rdmsr, wrmsr};
use crate::cpu::cpuid;
use crate::line::Line;
use crate::user;

const IA32_UMWAIT_CONTROL: u32 = 0xe1;

static WORD: u64 = 0;

fn tpause(state: u32, ticks: u64) -> Outcome {
    attempt!("rdtsc", "add eax, {ticks:e}", "adc edx, 0", "tpause {state:e}";
        state = in(reg) state, ticks = in(reg) ticks, out("eax") _, out("edx") _)
}

/// Executes TPAUSE at CPL 3, until a time that has passed.
#[unsafe(naked)]
extern "C" fn at_cpl3() {
    naked_asm!("xor eax, eax", "xor edx, edx", "xor ecx, ecx", "tpause ecx", "setc al", "movzx eax, al", "int 0x80")
}

/// Executes the three instructions with good and bad operands, and writes the MSR that limits the time that they wait.
pub fn waiting(line: &mut Line) {
    if cpuid(7, 0)[2] >> 5 & 1 == 0 {
        // Without the feature there is nothing to test.
        line.item("lacks", "WAITPKG");
        return;
    }
    line.item("control", Hex(rdmsr(IA32_UMWAIT_CONTROL)));
    for value in [0x100, 0x1_0000_0001, 2] {
        let wrote = wrmsr(IA32_UMWAIT_CONTROL, value);
        line.item(format_args!("control-{value:x}"), format_args!("{}/{}", Verdict(wrote), Hex(rdmsr(IA32_UMWAIT_CONTROL))));
    }
    let _ = wrmsr(IA32_UMWAIT_CONTROL, 0);
    let address = &raw const WORD;
    let mut outcomes = [Ok(()); 6];
    let exits = Exits::of(|| {
        outcomes = [
            tpause(0, 0),
            tpause(1, 1000),
            tpause(2, 0),
            attempt!("umonitor {a}"; a = in(reg) address),
            attempt!("umonitor {a}", "umwait {s:e}"; a = in(reg) address, s = in(reg) 0_u32, in("eax") 0, in("edx") 0),
            attempt!("umwait {s:e}"; s = in(reg) 4_u32, in("eax") 0, in("edx") 0),
        ];
    });
    for (name, outcome) in ["tpause", "tpause-c01", "tpause-bad", "umonitor", "umwait", "umwait-bad"].into_iter().zip(outcomes) {
        line.item(name, Verdict(outcome));
    }
    line.item("exits", exits);
    // SAFETY: the function uses no stack, writes only registers that it may change, and ends with INT 0x80.
    line.item("cpl3", Hex(unsafe { user::visit(at_cpl3 as *const () as u64, 0) }));
}
