//! The guest's accesses to the registers of the remapping units that guard Vidar's memory. Their pages are not mapped
//! in the second stage.

use super::machine::Machine;
use super::mmio::{self, Size};
use super::outcome::{Outcome, REFUSE};
use super::vcpu::Vcpu;
use crate::mem::addr::Gpa;

/// Emulates the instruction that accesses `address`, if a unit has its registers there. Registers are accessed by
/// aligned words of 32 or 64 bits; an instruction that Vidar does not know gets #GP in the end, as any other access
/// does. VT-d specification, 11.2 "Software Access to Registers".
#[cold]
pub fn access<V: Vcpu, T>(vcpu: &mut V, machine: &Machine<V, T>, address: Gpa) -> Option<Outcome> {
    let (unit, offset) = machine.host.dma.find(address)?;
    let instruction = match mmio::next(vcpu, machine, |_| true) {
        Ok(instruction) => instruction,
        Err(outcome) => return Some(outcome),
    };
    if !address.is_aligned(instruction.size.bytes()) {
        return Some(REFUSE);
    }
    let mut unit = unit.lock();
    // The low half comes first, as hardware does it where it divides an access.
    let halves = if instruction.size == Size::Bits64 { 2 } else { 1 };
    let halves = (0..halves).map(|half| (offset + half * 4, half * 32));
    let mut old = 0;
    if instruction.reads() {
        halves
            .clone()
            .for_each(|(offset, shift)| old |= u64::from(unit.read(offset, machine.guest)) << shift);
    }
    if let Some(value) = instruction.execute(vcpu, old) {
        halves.for_each(|(offset, shift)| unit.write(offset, (value >> shift) as u32, machine.guest));
    }
    Some(Outcome::Skip(instruction.length))
}
