//! Scenarios that end the machine. Each prints a line before it does so, since nothing can be printed afterwards. If
//! the machine starts again, the probe prints its first line again.

#![expect(unsafe_code, reason = "the instructions under test exist only as assembly")]

use crate::apic::Apic;
use crate::attempt::attempt;
use crate::cpu::outb;
use crate::idt;
use crate::line::Line;
use crate::serial::{Serial, say};

fn now(name: &str) {
    say!("probe {name}: now");
    Serial::drain();
}

/// Causes a triple fault: raises an exception while the interrupt descriptor table is empty.
pub fn triple(line: &mut Line) {
    now("triple");
    idt::load(0);
    let outcome = attempt!("ud2");
    line.word(if outcome.is_ok() { "survived" } else { "caught" });
}

/// Sends INIT to this CPU.
pub fn init(line: &mut Line) {
    now("init");
    Apic::find().init_self();
    linger(line);
}

/// Resets the machine by the keyboard controller.
pub fn keyboard(line: &mut Line) {
    now("reset-keyboard");
    outb(0x64, 0xfe);
    linger(line);
}

/// Resets the machine by the fast reset of system control port A.
pub fn fast(line: &mut Line) {
    now("reset-fast");
    outb(0x92, 0x01);
    linger(line);
}

/// Resets the machine by the reset control register of the chip set.
pub fn chip_set(line: &mut Line) {
    now("reset-cf9");
    outb(0xcf9, 0x02);
    outb(0xcf9, 0x06);
    linger(line);
}

/// Waits for the reset, which may take some time.
fn linger(line: &mut Line) {
    for _ in 0..1_000_000 {
        core::hint::spin_loop();
    }
    line.word("survived");
}
