//! What happens after an instruction: the single-step trap, the end of the blocking by STI and MOV SS, and the end of
//! the resume flag. A hypervisor that executes an instruction in the guest's place has to do the same.

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

/// The bits of DR6 that give the reason: breakpoints 0 to 3, and single step.
const REASONS: u64 = 0x400f;

const CR4_OSXSAVE: u64 = 1 << 18;

/// The number of traps that are recorded.
const RECORDED: usize = 3;

/// The address that the addresses of traps are relative to.
pub(super) static START: AtomicU64 = AtomicU64::new(0);
static COUNT: AtomicUsize = AtomicUsize::new(0);
static RIPS: [AtomicU64; RECORDED] = [const { AtomicU64::new(0) }; RECORDED];
static STATUS: [AtomicU64; RECORDED] = [const { AtomicU64::new(0) }; RECORDED];

/// Records a trap. Returns the number of traps before it.
fn record(frame: &Frame, status: u64) -> usize {
    let count = COUNT.fetch_add(1, Relaxed);
    if count < RECORDED {
        RIPS[count].store(frame.rip, Relaxed);
        STATUS[count].store(status, Relaxed);
    }
    count
}

/// Handles a single-step trap: records it, and ends the stepping after the second one.
pub(super) fn on_step(frame: &mut Frame) {
    let count = record(frame, cpu::dr6() & REASONS);
    cpu::set_dr6(0xffff_0ff0);
    if count >= 1 {
        frame.rflags &= !TF;
    }
}

/// Handles an instruction breakpoint: records it, and resumes with RF set, so that the instruction is executed.
fn on_breakpoint(frame: &mut Frame) {
    let count = record(frame, cpu::dr6() & REASONS);
    cpu::set_dr6(0xffff_0ff0);
    frame.rflags |= RF;
    if count >= RECORDED {
        cpu::clear_dr7();
    }
}

/// Handles an interrupt: records it, and turns interrupts off.
fn on_interrupt(frame: &mut Frame) {
    record(frame, 0);
    Apic::find().end_of_interrupt();
    frame.rflags &= !IF;
}

/// Formats the traps since [`reset`], as `+OFFSET:REASON,...`.
pub(super) struct Traps;

impl Display for Traps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = COUNT.load(Relaxed);
        for index in 0..count.min(RECORDED) {
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
            1..=RECORDED => Ok(()),
            more => write!(f, ",{more} in all"),
        }
    }
}

/// Forgets the recorded traps.
pub(super) fn reset() {
    COUNT.store(0, Relaxed);
}

/// Steps over the instructions, beginning with the first. NOPs of one byte follow them.
macro_rules! stepping {
    ($($instruction:literal),+ $(; $($operand:tt)*)?) => {{
        $crate::scenarios::step::reset();
        // The outcome of the instruction itself is tested by another scenario.
        let _ = $crate::handlers::handling(1, $crate::scenarios::step::on_step, || {
            $crate::attempt::attempt!(
                "mov r13, rbx", // CPUID changes RBX, which cannot be an operand of inline assembly
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

/// Steps over instructions that exit, and for comparison over some that do not.
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

/// Steps over a hypercall.
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

/// Takes an interrupt that is pending at STI. It must come after the instruction that follows STI, also if a hypervisor
/// executes that instruction.
pub fn shadow(line: &mut Line) {
    const VECTOR: u8 = 0x41;
    // An MSR that the CPU has, and whose read exits: EFER on AMD-V, and IA32_FEATURE_CONTROL on VT-x.
    let msr = if vidar::amd() { 0xc000_0080_u64 } else { 0x3a };
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
                    inout("rax") 0x8000_0000_u64 => _, inout("rcx") msr => _, inout("rdx") 0_u64 => _
                )
            });
            Traps
        }};
    }
    line.item("sti-nop", interrupted!("nop"));
    line.item("sti-cpuid", interrupted!("cpuid"));
    line.item("sti-sti-cpuid", interrupted!("sti", "cpuid"));
    line.item("sti-rdmsr", interrupted!("rdmsr"));
}

/// Sets breakpoints on CPUID and on the next instruction. The resume flag that lets CPUID execute must be clear at the
/// second breakpoint.
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
