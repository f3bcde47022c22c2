//! What follows an instruction: the single-step trap, the shadow of STI and MOV SS, and the resume flag. Whoever
//! executes an instruction in the guest's place owes it these.

#![expect(unsafe_code, reason = "the instructions under test exist only as assembly")]

use core::fmt::{self, Display};
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use crate::apic::Apic;
use crate::attempt::{attempt, keeping_cr4, set_cr4};
use crate::frame::Frame;
use crate::handlers::handling;
use crate::line::Line;
use crate::{cpu, vidar};

const TF: u64 = 1 << 8;
const IF: u64 = 1 << 9;
const RF: u64 = 1 << 16;

/// The bits of DR6 that say why: breakpoints 0 to 3, and single step.
const REASONS: u64 = 0x400f;

const CR4_OSXSAVE: u64 = 1 << 18;

/// Traps that are kept: enough to see the second of two.
const KEPT: usize = 3;

/// The address that the traps are counted from.
pub(super) static START: AtomicU64 = AtomicU64::new(0);
static COUNT: AtomicUsize = AtomicUsize::new(0);
static RIPS: [AtomicU64; KEPT] = [const { AtomicU64::new(0) }; KEPT];
static STATUS: [AtomicU64; KEPT] = [const { AtomicU64::new(0) }; KEPT];

fn note(frame: &Frame, status: u64) -> usize {
    let count = COUNT.fetch_add(1, Relaxed);
    if count < KEPT {
        RIPS[count].store(frame.rip, Relaxed);
        STATUS[count].store(status, Relaxed);
    }
    count
}

/// A step: kept, and after the second the stepping ends.
pub(super) fn on_step(frame: &mut Frame) {
    let count = note(frame, cpu::dr6() & REASONS);
    cpu::set_dr6(0xffff_0ff0);
    if count >= 1 {
        frame.rflags &= !TF;
    }
}

/// An instruction breakpoint: kept, and resumed past.
fn on_breakpoint(frame: &mut Frame) {
    let count = note(frame, cpu::dr6() & REASONS);
    cpu::set_dr6(0xffff_0ff0);
    frame.rflags |= RF;
    if count >= KEPT {
        cpu::clear_dr7();
    }
}

/// An interrupt: kept, and the last.
fn on_interrupt(frame: &mut Frame) {
    note(frame, 0);
    Apic::find().end_of_interrupt();
    frame.rflags &= !IF;
}

/// The traps since [`reset`], as `+OFFSET:REASON,...`.
pub(super) struct Traps;

impl Display for Traps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = COUNT.load(Relaxed);
        for index in 0..count.min(KEPT) {
            let offset = RIPS[index].load(Relaxed).wrapping_sub(START.load(Relaxed)) as i64;
            let separator = if index > 0 { "," } else { "" };
            write!(f, "{separator}{offset:+}")?;
            match STATUS[index].load(Relaxed) {
                0 => {}
                status => write!(f, ":{status:x}")?,
            }
        }
        match count {
            0 => f.write_str("never"),
            1..=KEPT => Ok(()),
            more => write!(f, ",{more} in all"),
        }
    }
}

pub(super) fn reset() {
    COUNT.store(0, Relaxed);
}

/// Steps over the instructions, from the first on. What comes after them are NOPs of one byte.
macro_rules! stepping {
    ($($instruction:literal),+ $(; $($operand:tt)*)?) => {{
        $crate::scenarios::step::reset();
        // What the instruction itself does is another scenario's matter.
        let _ = $crate::handlers::handling(1, $crate::scenarios::step::on_step, || {
            $crate::attempt::attempt!(
                "mov r13, rbx", // CPUID writes it, and inline assembly cannot name it
                "pushfq",
                "pop r15",
                "bts r15, 8",
                "lea r14, [rip + 2f]",
                "mov [rip + {start}], r14",
                "push r15",
                "popfq",
                "2:",
                $($instruction,)+
                "nop",
                "nop",
                "nop",
                "nop",
                "mov rbx, r13";
                start = sym $crate::scenarios::step::START, out("r13") _, out("r14") _, out("r15") _ $(, $($operand)*)?
            )
        });
        $crate::scenarios::step::Traps
    }};
}
pub(super) use stepping;

/// Stepping over instructions that leave to a hypervisor, and over some that do not, for comparison.
pub fn step(line: &mut Line) {
    line.item("nop", stepping!("nop"));
    line.item("cpuid", stepping!("cpuid"; inout("rax") 0x8000_0000_u64 => _, out("rcx") _, out("rdx") _));
    line.item("rdmsr-3a", stepping!("rdmsr"; in("ecx") 0x3a, out("eax") _, out("edx") _));
    line.item("rdmsr-10", stepping!("rdmsr"; in("ecx") 0x10, out("eax") _, out("edx") _));
    line.item("rdmsr-bad", stepping!("rdmsr"; in("ecx") 0x5000_1234, out("eax") _, out("edx") _));
    let base = crate::attempt::rdmsr(0x1b).unwrap_or(0);
    line.item(
        "wrmsr-1b",
        stepping!("wrmsr"; in("ecx") 0x1b, in("eax") base as u32, in("edx") (base >> 32) as u32),
    );
    let cr0 = cpu::cr0();
    line.item("mov-cr0", stepping!("mov cr0, rax"; in("rax") cr0 ^ 1 << 5));
    let _ = crate::attempt::set_cr0(cr0);
    line.item("mov-cr4", stepping!("mov cr4, rax"; in("rax") cpu::cr4()));
    if cpu::cpuid(1, 0)[2] >> 26 & 1 == 1 {
        keeping_cr4(|| {
            let _ = set_cr4(cpu::cr4() | CR4_OSXSAVE);
            line.item("xsetbv", stepping!("xsetbv"; in("ecx") 0, in("eax") 1, in("edx") 0));
        });
    }
    line.item("invd", stepping!("invd"));
    line.item("wbinvd", stepping!("wbinvd"));
    line.item("mov-ss-nop", stepping!("mov ss, r12d", "nop"; in("r12") 0x10_u64));
    line.item("mov-ss-cpuid", stepping!("mov ss, r12d", "cpuid";
        in("r12") 0x10_u64, inout("rax") 0x8000_0000_u64 => _, out("rcx") _, out("rdx") _));
}

/// Stepping over a hypercall.
pub fn hypercall(line: &mut Line) {
    if !vidar::present() {
        return line.word("none");
    }
    let traps = if vidar::amd() {
        stepping!("vmmcall"; inout("rax") u64::MAX => _)
    } else {
        stepping!("vmcall"; inout("rax") u64::MAX => _)
    };
    line.item("vmcall", traps);
}

/// An interrupt that waits for STI comes after the instruction behind it, whoever executes that.
pub fn shadow(line: &mut Line) {
    const VECTOR: u8 = 0x41;
    let apic = Apic::find();
    apic.enable();
    macro_rules! interrupted {
        ($($instruction:literal),+) => {{
            reset();
            let _ = handling(VECTOR, on_interrupt, || {
                apic.interrupt_self(VECTOR);
                attempt!(
                    "mov r13, rbx",
                    "lea r14, [rip + 2f]",
                    "mov [rip + {start}], r14",
                    "sti",
                    "2:",
                    $($instruction,)+
                    "nop",
                    "nop",
                    "cli",
                    "mov rbx, r13";
                    start = sym START, out("r13") _, out("r14") _,
                    inout("rax") 0x8000_0000_u64 => _, inout("rcx") 0_u64 => _, inout("rdx") 0_u64 => _
                )
            });
            Traps
        }};
    }
    line.item("sti-nop", interrupted!("nop"));
    line.item("sti-cpuid", interrupted!("cpuid"));
    line.item("sti-sti-cpuid", interrupted!("sti", "cpuid"));
    line.item("sti-rdmsr", interrupted!("mov ecx, 0x3a", "rdmsr"));
}

/// Breakpoints on CPUID and on what follows: the resume flag that passes the first must be gone before the second.
pub fn rf(line: &mut Line) {
    reset();
    let _ = handling(1, on_breakpoint, || {
        attempt!(
            "mov r13, rbx",
            "lea r14, [rip + 2f]",
            "mov [rip + {start}], r14",
            "mov dr0, r14",
            "lea r14, [rip + 3f]",
            "mov dr1, r14",
            "mov r14d, 0x40a",              // both breakpoints on, for execution
            "mov dr7, r14",
            "2:",
            "cpuid",
            "3:",
            "nop",
            "mov r14d, 0x400",
            "mov dr7, r14",
            "mov rbx, r13";
            start = sym START, out("r13") _, out("r14") _,
            inout("rax") 0x8000_0000_u64 => _, out("rcx") _, out("rdx") _
        )
    });
    cpu::clear_dr7();
    line.item("cpuid", Traps);
}
