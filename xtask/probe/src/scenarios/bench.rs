//! What an exit costs, in ticks of the time-stamp counter.

#![expect(unsafe_code, reason = "the instructions that are measured exist only as assembly")]

use core::arch::asm;
use core::fmt::{self, Display};

use vidar_abi::Call;

use crate::line::Line;
use crate::{cpu, vidar};

const ROUNDS: u64 = 10_000;

/// The port of the power-on self-test codes: reading it does nothing.
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

/// Repeats one measurement.
fn measure(ticks: impl Fn() -> u64) -> Measurement {
    let mut result = Measurement { min: u64::MAX, sum: 0 };
    for _ in 0..ROUNDS {
        let ticks = ticks();
        result.min = result.min.min(ticks);
        result.sum += ticks;
    }
    result
}

/// Ticks between two RDTSC with the instruction between them, and two moves: that of the first result, and that of
/// RAX. So the empty measurement is 3 where an instruction is a tick.
macro_rules! ticks {
    ($($instruction:literal)?, $rax:expr $(, $($operand:tt)*)?) => {
        measure(|| {
            let (start, end): (u32, u32);
            // SAFETY: what stands between only reads, or writes to a register its own value.
            unsafe {
                asm!(
                    "mov r12, rbx",
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

/// Round trips through Vidar, then what must not go through it, and how many exits that made all the same.
pub fn bench(line: &mut Line) {
    let vidar = vidar::present();
    line.word(format_args!("empty {}", ticks!(, 0_u64)));
    // A leaf with nothing in it for a hypervisor to change.
    line.word(format_args!("cpuid {}", ticks!("cpuid", 0x8000_0000_u64)));
    if vidar {
        let number = Call::Version as u64;
        let measured =
            if vidar::amd() { ticks!("vmmcall", number) } else { ticks!("vmcall", number) };
        line.word(format_args!("vmcall {measured}"));
    } else {
        line.word("vmcall none");
    }
    let before = vidar::exits();
    line.word(format_args!("port {}", ticks!("in al, dx", 0_u64, in("rdx") u64::from(PORT))));
    line.word(format_args!("cr3 {}", ticks!("mov cr3, rax", cpu::cr3())));
    if let (Some(before), Some(after)) = (before, vidar::exits()) {
        // The second question is an exit of its own.
        line.word(format_args!("port-and-cr3 exits={}", (after - before).saturating_sub(1)));
    }
}
