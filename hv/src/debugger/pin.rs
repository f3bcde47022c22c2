//! The pin of an I/O APIC to which the line to gdb leads.

#![expect(unsafe_code, reason = "the registers of an I/O APIC are accessed")]

use alloc::boxed::Box;

use vidar_core::firmware::io_apic::Pin;
use vidar_core::mem::addr::{Hva, PAGE_SIZE};
use vidar_core::mem::ranges::RangeSet;
use vidar_core::vmm::kept_pin::{IoApic, KeptPin, Registers};

use crate::host::memory::HostMemory;

/// The registers of an I/O APIC, mapped for good.
struct Mapped(Hva);

impl Mapped {
    /// Returns the address of the 32 bits at `offset`, which are in the page.
    fn at(&self, offset: usize) -> *mut u32 {
        (self.0.0 as *mut u32).wrapping_byte_add((offset % PAGE_SIZE as usize) & !3)
    }
}

impl Registers for Mapped {
    fn read(&mut self, offset: usize) -> u32 {
        // SAFETY: the register is mapped, for good. Reading one has no side effect.
        unsafe { self.at(offset).read_volatile() }
    }

    fn write(&mut self, offset: usize, value: u32) {
        // SAFETY: the register is mapped, for good. What it may hold is decided by `IoApic`: Vidar's own entry, and
        // what the guest wants of the others.
        unsafe { self.at(offset).write_volatile(value) }
    }
}

/// Keeps `pin`, whose interrupt then comes as an NMI to the CPU with the APIC ID `cpu`. Returns `None` if the I/O APIC
/// cannot do that, or if its registers are in no page of their own.
#[cold]
pub fn keep(pin: Pin, ram: &RangeSet, cpu: u32, memory: &mut HostMemory) -> Option<KeptPin> {
    let page = pin.registers..pin.registers + PAGE_SIZE;
    if !pin.registers.is_aligned(PAGE_SIZE) || pin.level || ram.overlaps(&page) {
        return None;
    }
    let registers = Mapped(memory.map_registers(pin.registers, PAGE_SIZE).ok()?);
    let apic = IoApic::keep(Box::new(registers), pin.number, pin.active_low, cpu)?;
    Some(KeptPin::new(pin.registers, apic))
}
