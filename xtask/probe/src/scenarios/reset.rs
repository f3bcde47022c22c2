//! The ends of the machine. Each says that it is about to come, as nothing comes after; a machine that starts again
//! says hello again.

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

/// An exception with no table to look it up in: a triple fault.
pub fn triple(line: &mut Line) {
    now("triple");
    idt::load(0);
    let outcome = attempt!("ud2");
    line.word(if outcome.is_ok() { "survived" } else { "caught" });
}

/// INIT, sent to itself.
pub fn init(line: &mut Line) {
    now("init");
    Apic::find().init_self();
    linger(line);
}

/// The keyboard controller's reset line.
pub fn keyboard(line: &mut Line) {
    now("reset-keyboard");
    outb(0x64, 0xfe);
    linger(line);
}

/// The fast reset of the system control port.
pub fn fast(line: &mut Line) {
    now("reset-fast");
    outb(0x92, 0x01);
    linger(line);
}

/// The reset control register of the chip set.
pub fn chip_set(line: &mut Line) {
    now("reset-cf9");
    outb(0xcf9, 0x02);
    outb(0xcf9, 0x06);
    linger(line);
}

/// Gives a reset time to come.
fn linger(line: &mut Line) {
    for _ in 0..1_000_000 {
        core::hint::spin_loop();
    }
    line.word("survived");
}
