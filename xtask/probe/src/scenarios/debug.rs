//! Debug exceptions and breakpoints of the guest's own. A debugger below the guest has the same exceptions exit, and
//! must pass these on as if it were not there.

#![expect(unsafe_code, reason = "the instructions under test exist only as assembly")]

use core::fmt::{self, Display};
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::step::{START, stepping};
use crate::attempt::attempt;
use crate::cpu;
use crate::frame::Frame;
use crate::handlers::handling;
use crate::line::Line;

/// DR7.GD.
const GENERAL_DETECT: u64 = 1 << 13;
/// All bits of DR6 that give a reason.
const REASONS: u64 = 0xe00f;

/// What the handler has found, or `u64::MAX`: the address, and for a debug exception the reasons and DR7.GD.
static FOUND: [AtomicU64; 3] = [const { AtomicU64::new(u64::MAX) }; 3];

fn on_exception(frame: &mut Frame) {
    FOUND[0].store(frame.rip.wrapping_sub(START.load(Relaxed)), Relaxed);
    FOUND[1].store(cpu::dr6() & REASONS, Relaxed);
    FOUND[2].store(cpu::dr7() & GENERAL_DETECT, Relaxed);
    cpu::set_dr6(0xffff_0ff0);
}

/// Formats what the handler has found since the last time, as `+OFFSET`, and with the rest if there was a debug
/// exception.
struct Found(bool);

impl Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [offset, reasons, detect] = FOUND.each_ref().map(|value| value.swap(u64::MAX, Relaxed));
        match (offset, self.0) {
            (u64::MAX, _) => f.write_str("never"),
            (_, false) => write!(f, "{offset:+}"),
            (_, true) => write!(f, "{offset:+}:{reasons:x}/gd={detect:x}"),
        }
    }
}

/// Raises the exception `vector` by instructions, and says where the handler would return to.
macro_rules! raised {
    ($vector:literal, $($instruction:literal),+ $(; $($operand:tt)*)?) => {{
        let _ = handling($vector, on_exception, || {
            attempt!(
                "lea r14, [rip + 2f]",
                "mov [rip + {start}], r14",
                "2:",
                $($instruction,)+
                "nop";
                start = sym START, out("r14") _ $(, $($operand)*)?
            )
        });
        Found($vector == 1)
    }};
}

/// Executes INT3, with prefixes and without, and INT 3, which is another instruction.
pub fn int3(line: &mut Line) {
    line.item("int3", raised!(3, "int3"));
    line.item("prefixed", raised!(3, ".byte 0x66, 0xcc"));
    line.item("prefixed-twice", raised!(3, ".byte 0x3e, 0x66, 0xcc"));
    line.item("int-n", raised!(3, ".byte 0xcd, 3"));
    line.item("int-n-prefixed", raised!(3, ".byte 0x66, 0xcd, 3"));
    line.item("after-mov-ss", raised!(3, "mov ss, r12d", "int3"; in("r12") 0x10_u64));
}

/// Executes INT1, with a prefix and without.
pub fn int1(line: &mut Line) {
    line.item("int1", raised!(1, ".byte 0xf1"));
    line.item("prefixed", raised!(1, ".byte 0x66, 0xf1"));
}

/// Steps over STI, after which the single-step trap comes while STI still blocks interrupts, and over what else has to
/// do with RFLAGS.
pub fn flags(line: &mut Line) {
    line.item("sti", stepping!("sti", "cli"));
    line.item("sti-cpuid", stepping!("sti", "cpuid", "cli";
        inout("rax") 0x8000_0000_u64 => _, out("rcx") _, out("rdx") _));
    line.item("pushf", stepping!("pushfq", "pop r12"; out("r12") _));
    line.item("mov-ss-sti", stepping!("mov ss, r12d", "sti", "cli"; in("r12") 0x10_u64));
}

/// Reads a debug register while DR7.GD is set. The exception comes before the instruction, and clears the bit.
pub fn general_detect(line: &mut Line) {
    line.item("clear", raised!(1, "mov r12, dr0"; out("r12") _));
    let _ = attempt!("mov dr7, r12"; in("r12") GENERAL_DETECT | 0x400);
    line.item("set", raised!(1, "mov r12, dr0"; out("r12") _));
    line.item("then", raised!(1, "mov r12, dr0"; out("r12") _));
    cpu::clear_dr7();
}
