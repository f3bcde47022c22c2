//! The guest's accesses to the I/O APIC of which Vidar keeps a pin. Its page is not mapped in the second stage.

use super::machine::Machine;
use super::mmio::{self, Instruction, Size};
use super::outcome::{Outcome, REFUSE};
use super::vcpu::Vcpu;
use crate::mem::addr::Gpa;

/// Emulates the instruction that accesses `address`, if the I/O APIC has its registers there. They are accessed by
/// aligned words of 32 bits; any other access gets #GP in the end.
#[cold]
pub fn access<V: Vcpu, T>(vcpu: &mut V, machine: &Machine<V, T>, address: Gpa) -> Option<Outcome> {
    let kept = machine.kept_pin.as_ref()?;
    let offset = kept.offset(address)?;
    let is_word = |found: &Instruction| found.size == Size::Bits32;
    let instruction = match mmio::next(vcpu, machine, is_word) {
        Ok(instruction) => instruction,
        Err(outcome) => return Some(outcome),
    };
    if !address.is_aligned(Size::Bits32.bytes()) {
        return Some(REFUSE);
    }
    let mut apic = kept.apic.lock();
    let old = if instruction.reads() { apic.read(offset) } else { 0 };
    if let Some(value) = instruction.execute(vcpu, old.into()) {
        apic.write(offset, value as u32);
    }
    Some(Outcome::Skip(instruction.length))
}
