//! The end of the machine.

#![expect(unsafe_code, reason = "the instructions under test exist only as assembly")]

use crate::attempt::attempt;
use crate::idt;
use crate::line::Line;
use crate::serial::{Serial, say};

/// An exception with no table to look it up in: a triple fault. Says so first, as nothing comes after.
pub fn triple(line: &mut Line) {
    say!("probe triple: now");
    Serial::drain();
    idt::load(0);
    let outcome = attempt!("ud2");
    line.word(if outcome.is_ok() { "survived" } else { "caught" });
}
