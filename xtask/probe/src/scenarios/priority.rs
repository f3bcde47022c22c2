//! The task priority in CR8, below which interrupts have to wait.

#![expect(unsafe_code, reason = "CR8 is accessed by assembly")]

use core::arch::asm;
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

use crate::apic::Apic;
use crate::attempt::{Verdict, attempt};
use crate::frame::Frame;
use crate::handlers::handling;
use crate::line::Line;

const VECTOR: u8 = 0x51;

static COUNT: AtomicU32 = AtomicU32::new(0);

fn on_interrupt(_: &mut Frame) {
    COUNT.fetch_add(1, Relaxed);
    Apic::find().end_of_interrupt();
}

fn cr8() -> u64 {
    let value: u64;
    // SAFETY: reading the register changes nothing.
    unsafe { asm!("mov {}, cr8", out(reg) value, options(nomem, nostack, preserves_flags)) };
    value
}

/// Sends itself an interrupt of priority class 5 while the task priority is 4, 5 and 15, and then lowers the priority
/// to 0.
pub fn priority(line: &mut Line) {
    const TASK_PRIORITY: u64 = 0x80;
    let apic = Apic::find();
    apic.enable();
    let set = |value: u64| attempt!("mov cr8, {value}"; value = in(reg) value);
    handling(VECTOR, on_interrupt, || {
        for (name, priority) in [("4", 4), ("5", 5), ("15", 15)] {
            COUNT.store(0, Relaxed);
            let outcome = set(priority);
            let (read, in_apic) = (cr8(), apic.read(TASK_PRIORITY));
            apic.interrupt_self(VECTOR);
            // SAFETY: the handler returns, and then interrupts are turned off again.
            unsafe { asm!("sti", "nop", "nop", "cli") };
            let before = COUNT.load(Relaxed);
            let lowered = set(0);
            // SAFETY: the handler returns, and then interrupts are turned off again.
            unsafe { asm!("sti", "nop", "nop", "cli") };
            let after = COUNT.load(Relaxed);
            line.item(name, format_args!("{}/{read:x}/{in_apic:x}/{before}/{}/{after}", Verdict(outcome), Verdict(lowered)));
        }
    });
    line.item("bad", Verdict(set(16)));
}
