//! Events whose delivery accesses memory that the second stage does not map yet. Each must be delivered exactly once,
//! as on a bare machine.
//!
//! The memory is a stack inside of Vidar's own region. Vidar maps a decoy there when a page is accessed for the first
//! time. On a bare machine the stack is in ordinary memory.

#![expect(unsafe_code, reason = "the stack is switched, and events are raised in assembly")]

use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::apic::Apic;
use crate::frame::Frame;
use crate::handlers::handling;
use crate::line::Line;
use crate::{cpu, vidar};

const TF: u64 = 1 << 8;
const IF: u64 = 1 << 9;

/// The address of Vidar's region, so that a bare machine uses the same memory.
const REGION: u64 = 0x20_0000;
const PAGE: u64 = 0x1000;

const VECTOR: u8 = 0x42;

static COUNT: AtomicU64 = AtomicU64::new(0);
/// The address that the handler returns to.
static RESUME: AtomicU64 = AtomicU64::new(0);
/// The address of the first instruction.
static START: AtomicU64 = AtomicU64::new(0);
/// The instruction pointer that the last event pushed.
static RIP: AtomicU64 = AtomicU64::new(0);
/// The error code of the last event.
static ERROR: AtomicU64 = AtomicU64::new(0);
/// DR6.BS at a debug exception, and CR2 at a page fault.
static MORE: AtomicU64 = AtomicU64::new(0);
/// The stack pointer that the last event pushed.
static STACK: AtomicU64 = AtomicU64::new(0);

fn on_event(frame: &mut Frame) {
    COUNT.fetch_add(1, Relaxed);
    RIP.store(frame.rip, Relaxed);
    ERROR.store(frame.error, Relaxed);
    STACK.store(frame.rsp, Relaxed);
    let more = match frame.vector {
        1 => cpu::dr6() & 0x4000,
        14 => cpu::cr2(),
        _ => 0,
    };
    MORE.store(more, Relaxed);
    cpu::set_dr6(0xffff_0ff0);
    if frame.vector == VECTOR.into() {
        Apic::find().end_of_interrupt();
    }
    frame.rip = RESUME.load(Relaxed);
    frame.rflags &= !(TF | IF);
}

/// Raises an event on a stack that has not been accessed before, and adds how often and where the event was delivered.
macro_rules! raise {
    ($line:ident, $name:literal, $vector:expr, $page:expr, $($instruction:literal),+ $(; $($operand:tt)*)?) => {{
        COUNT.store(0, Relaxed);
        let stack = vidar::region().map_or(REGION, |(base, _)| base) + $page * PAGE + 0xff0;
        handling($vector, on_event, || {
            // SAFETY: the handler resumes at label 3, where the old stack pointer is restored.
            unsafe {
                asm!(
                    "lea {scratch}, [rip + 3f]",
                    "mov [rip + {resume}], {scratch}",
                    "lea {scratch}, [rip + 2f]",
                    "mov [rip + {start}], {scratch}",
                    "mov {old}, rsp",
                    "mov rsp, {stack}",
                    "2:",
                    $($instruction,)+
                    "3:",
                    "mov rsp, {old}",
                    scratch = out(reg) _,
                    old = out(reg) _,
                    stack = in(reg) stack,
                    start = sym START,
                    resume = sym RESUME,
                    $($($operand)*)?
                );
            }
        });
        let offset = RIP.load(Relaxed).wrapping_sub(START.load(Relaxed)) as i64;
        let place = if STACK.load(Relaxed) == stack { "there" } else { "elsewhere" };
        $line.item($name, format_args!("{}:{offset:+}:{:x}:{:x}:{place}",
            COUNT.load(Relaxed), ERROR.load(Relaxed), MORE.load(Relaxed)));
    }};
}

/// Raises faults, traps, interrupts and an NMI.
pub fn delivery(line: &mut Line) {
    raise!(line, "ud", 6, 0x100, "ud2");
    raise!(line, "gp", 13, 0x101, "mov ds, {bad:x}"; bad = in(reg) 0x7770_u64);
    raise!(line, "pf", 14, 0x102, "mov {hole}, [{hole}]"; hole = inout(reg) 0x70_0000_1238_u64 => _);
    raise!(line, "int3", 3, 0x103, "int3");
    raise!(line, "int", VECTOR, 0x104, "int 0x42");
    raise!(line, "step", 1, 0x105, "mov rsp, {old}", "pushfq", "or dword ptr [rsp], 0x100", "popfq",
        "mov rsp, {stack}", "nop", "nop");
    let apic = Apic::find();
    apic.enable();
    apic.interrupt_self(VECTOR);
    raise!(line, "interrupt", VECTOR, 0x106, "sti", "nop", "4: pause", "jmp 4b");
    raise!(line, "nmi", 2, 0x107, "mov dword ptr [{apic} + 0x310], {id:e}", "mov dword ptr [{apic} + 0x300], 0x4400",
        "4: jmp 4b";
        apic = in(reg) apic.base(), id = in(reg) apic.read(0x20));
}
