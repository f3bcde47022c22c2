//! A pin of an I/O APIC that Vidar keeps for itself. Its interrupt reaches the boot CPU as an NMI, which exits.
//!
//! The guest has all other pins. It reads of the kept one what it has written there, and its writes go no further.
//! Intel 82093AA I/O Advanced Programmable Interrupt Controller, 3.0 "Register Description".

use alloc::boxed::Box;
use core::ops::Range;

use spin::Mutex;

use crate::mem::addr::{Gpa, Hpa, PAGE_SIZE};

/// The registers of an I/O APIC, 32 bits each.
pub trait Registers: Send {
    /// Reads the register at `offset` of the page.
    fn read(&mut self, offset: usize) -> u32;
    /// Writes the register at `offset` of the page.
    fn write(&mut self, offset: usize, value: u32);
}

/// The offset of the register that selects what the data register is, IOREGSEL.
const SELECT: usize = 0;
/// The offset of the data register, IOWIN.
const DATA: usize = 0x10;

/// The index of the version register. Bits 23:16 are the number of the last pin.
const VERSION: u32 = 1;
/// The index of the first half of the redirection entry of pin 0.
const ENTRIES: u32 = 0x10;

/// The delivery mode NMI in a redirection entry. The line has to be edge-triggered then.
const NMI: u32 = 0b100 << 8;
/// The polarity: low is active.
const ACTIVE_LOW: u32 = 1 << 13;
/// The mask, which is set after a reset.
const MASKED: u32 = 1 << 16;
/// What the hardware alone writes in the first half: the delivery status and the remote IRR.
const STATUS: u32 = 1 << 12 | 1 << 14;

/// The I/O APIC.
pub struct IoApic {
    registers: Box<dyn Registers>,
    /// The number of the kept pin.
    pin: u8,
    /// What the guest has written to the select register.
    selected: u32,
    /// The redirection entry of the pin as the guest sees it.
    shown: [u32; 2],
}

impl IoApic {
    /// Keeps the pin `pin` and has its interrupt come as an NMI to the CPU with the APIC ID `cpu`. Returns `None` if
    /// there is no such pin, or if a redirection entry cannot name the CPU.
    pub fn keep(mut registers: Box<dyn Registers>, pin: u8, active_low: bool, cpu: u32) -> Option<Self> {
        // FFH is every CPU.
        let cpu = u8::try_from(cpu).ok().filter(|cpu| *cpu != 0xff)?;
        let selected = registers.read(SELECT);
        let [low, high] = [0, 1].map(|half| ENTRIES + 2 * u32::from(pin) + half);
        registers.write(SELECT, VERSION);
        let version = registers.read(DATA);
        let exists = version != u32::MAX && u32::from(pin) <= version >> 16 & 0xff;
        let mut shown = [0; 2];
        if exists {
            for (shown, index) in shown.iter_mut().zip([low, high]) {
                registers.write(SELECT, index);
                *shown = registers.read(DATA);
            }
            let entry = NMI | if active_low { ACTIVE_LOW } else { 0 };
            for (index, value) in [(low, entry | MASKED), (high, u32::from(cpu) << 24), (low, entry)] {
                registers.write(SELECT, index);
                registers.write(DATA, value);
            }
            shown[0] &= !STATUS;
        }
        registers.write(SELECT, selected);
        exists.then_some(Self { registers, pin, selected, shown })
    }

    /// Reads the register at `offset` for the guest.
    pub fn read(&mut self, offset: usize) -> u32 {
        let shown = self.half(offset).map(|shown| *shown);
        shown.unwrap_or_else(|| self.registers.read(offset))
    }

    /// Writes the register at `offset` for the guest.
    pub fn write(&mut self, offset: usize, value: u32) {
        match self.half(offset) {
            // The hardware alone writes to the status, which stays 0.
            Some(shown) => *shown = value & !STATUS,
            None => self.registers.write(offset, value),
        }
        if offset == SELECT {
            self.selected = value;
        }
    }

    /// Returns the half of the kept pin's entry that the guest has selected, if `offset` is that of the data.
    fn half(&mut self, offset: usize) -> Option<&mut u32> {
        let entry = (self.selected & 0xff).checked_sub(ENTRIES + 2 * u32::from(self.pin))?;
        self.shown.get_mut(entry as usize).filter(|_| offset == DATA)
    }
}

/// An I/O APIC with a pin that Vidar keeps, and the page of its registers.
pub struct KeptPin {
    /// The page, which the second stage does not map.
    pub page: Range<Hpa>,
    /// The I/O APIC.
    pub apic: Mutex<IoApic>,
}

impl KeptPin {
    /// Returns the I/O APIC whose registers begin at `start`, which is the start of a page.
    pub const fn new(start: Hpa, apic: IoApic) -> Self {
        Self { page: start..Hpa(start.0 + PAGE_SIZE), apic: Mutex::new(apic) }
    }

    /// Returns the offset of the register at `address`, if it is one of the I/O APIC's.
    pub fn offset(&self, address: Gpa) -> Option<usize> {
        let address = address.identity();
        self.page.contains(&address).then(|| (address.0 - self.page.start.0) as usize)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex as StdMutex};

    use super::*;

    /// An I/O APIC of 24 pins, with the number of the selected register.
    #[derive(Clone)]
    struct Model(Arc<StdMutex<(u32, [u32; 0x40])>>);

    impl Model {
        fn new() -> Self {
            let mut registers = [0; 0x40];
            registers[VERSION as usize] = 0x0017_0020;
            (0..24).for_each(|pin| registers[0x10 + 2 * pin] = MASKED | pin as u32);
            Self(Arc::new(StdMutex::new((7, registers))))
        }

        fn entry(&self, pin: usize) -> [u32; 2] {
            let (_, registers) = &*self.0.lock().unwrap();
            [registers[0x10 + 2 * pin], registers[0x11 + 2 * pin]]
        }
    }

    impl Registers for Model {
        fn read(&mut self, offset: usize) -> u32 {
            let (selected, registers) = &*self.0.lock().unwrap();
            if offset == SELECT { *selected } else { registers[*selected as usize] }
        }

        fn write(&mut self, offset: usize, value: u32) {
            let (selected, registers) = &mut *self.0.lock().unwrap();
            *(if offset == SELECT { selected } else { &mut registers[*selected as usize] }) = value;
        }
    }

    fn kept(pin: u8) -> (Model, IoApic) {
        let model = Model::new();
        let apic = IoApic::keep(Box::new(model.clone()), pin, false, 2).expect("there is such a pin");
        (model, apic)
    }

    #[test]
    fn the_kept_pin_is_an_nmi_and_stays_one_whatever_the_guest_writes() {
        let (model, mut apic) = kept(3);
        assert_eq!(model.entry(3), [NMI, 2 << 24]);
        assert_eq!(apic.read(SELECT), 7, "what was selected before");
        for (index, value, shown) in [(0x16, 0x1_5033, 0x1_0033), (0x17, 0xff00_0000, 0xff00_0000)] {
            apic.write(SELECT, index);
            apic.write(DATA, value);
            assert_eq!(apic.read(DATA), shown);
            assert_eq!(apic.read(SELECT), index);
        }
        assert_eq!(model.entry(3), [NMI, 2 << 24]);
    }

    #[test]
    fn the_guest_has_the_other_pins() {
        let (model, mut apic) = kept(3);
        apic.write(SELECT, 0x16);
        assert_eq!(apic.read(DATA), MASKED | 3, "as firmware has left it");
        for (index, value) in [(0x14, 5), (0x15, 6), (0x18, 7), (0x19, 8)] {
            apic.write(SELECT, index);
            apic.write(DATA, value);
            assert_eq!(apic.read(DATA), value);
        }
        assert_eq!([model.entry(2), model.entry(4)], [[5, 6], [7, 8]]);
        apic.write(SELECT, VERSION);
        assert_eq!(apic.read(DATA), 0x0017_0020);
    }

    #[test]
    fn a_pin_or_a_cpu_that_is_not_there_is_refused_and_nothing_is_changed() {
        for (pin, cpu) in [(24, 0), (239, 0), (3, 0xff), (3, 0x100)] {
            let model = Model::new();
            assert!(IoApic::keep(Box::new(model.clone()), pin, true, cpu).is_none(), "{pin} {cpu}");
            assert_eq!(model.0.lock().unwrap().0, 7);
            assert_eq!(model.entry(3), [MASKED | 3, 0]);
        }
        let (model, low) = (Model::new(), true);
        assert!(IoApic::keep(Box::new(model.clone()), 23, low, 0).is_some());
        assert_eq!(model.entry(23), [NMI | ACTIVE_LOW, 0]);
    }
}
