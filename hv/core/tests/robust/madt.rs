//! The firmware's list of CPUs and I/O APICs.

use std::cell::Cell;
use std::collections::HashSet;

use vidar_core::firmware::acpi::{CHECKSUM, ReadOnly, Table};
use vidar_core::firmware::io_apic;
use vidar_core::firmware::madt::{MAX_CPUS, parse, withdraw};

use crate::target::Target;

const TARGET: Target = Target { mend, ..Target::new("madt", check) };

/// Makes the length that of the input.
pub fn mend(bytes: &mut [u8]) {
    let size = bytes.len() as u32;
    bytes.iter_mut().skip(4).zip(size.to_le_bytes()).for_each(|(old, new)| *old = new);
}

/// A table in memory that counts how often it is read, of which some bytes may be in ROM.
pub struct Memory {
    pub bytes: Vec<u8>,
    rom_from: usize,
    reads: Cell<usize>,
}

impl Memory {
    /// Returns a table whose bytes from `rom_from` on are in ROM.
    pub fn new(bytes: &[u8], rom_from: usize) -> Self {
        Self { bytes: bytes.to_vec(), rom_from, reads: Cell::new(0) }
    }

    /// Asserts that it was read no more often than there are bytes, with some for each change.
    pub fn assert_few_reads(&self) {
        assert!(self.reads.get() <= 8 * self.bytes.len() + 8, "{} reads", self.reads.get());
    }
}

impl Table for Memory {
    fn bytes(&self) -> &[u8] {
        self.reads.set(self.reads.get() + 1);
        &self.bytes
    }

    fn put(&mut self, at: usize, byte: u8) -> bool {
        if at < self.rom_from {
            self.bytes[at] = byte;
        }
        self.bytes[at] == byte
    }
}

/// Returns the sum of all bytes, which a change must not change.
pub fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
}

/// Checks the parsers of the table, and the change of it.
pub fn check(input: &[u8]) {
    let madt = parse(input);
    // The shortest structure of a CPU has 8 bytes.
    assert!(madt.cpus.len() + madt.beyond <= input.len() / 8);
    assert!(madt.cpus.len() <= MAX_CPUS && (madt.beyond == 0 || madt.cpus.len() == MAX_CPUS));
    let ids: HashSet<_> = madt.cpus.iter().map(|cpu| cpu.apic_id).collect();
    assert_eq!(ids.len(), madt.cpus.len(), "a CPU is listed twice");
    for boot in madt.cpus.iter().map(|cpu| cpu.apic_id).chain([0, u32::MAX]) {
        if let Some(others) = madt.others(boot) {
            assert!(!others.contains(&boot));
            assert!(others.len() + 1 >= madt.cpus.len());
        }
    }

    for irq in 0..=u8::MAX {
        if let Some(pin) = io_apic::pin(input, irq) {
            assert!(irq < 16 && pin.number < 240 && pin.registers.0 < 1 << 32);
            assert_eq!(madt.damage, None, "a damaged table does not tell a pin");
        }
    }

    let lost = |id: u32| id % 2 == 1;
    let mut table = Memory::new(input, usize::MAX);
    assert_eq!(withdraw(&mut table, lost), Ok(()));
    table.assert_few_reads();
    assert_eq!(sum(&table.bytes), sum(input));
    let left = parse(&table.bytes);
    if left.damage.is_none() {
        let expected: Vec<_> = madt.cpus.iter().filter(|cpu| !lost(cpu.apic_id)).copied().collect();
        if madt.beyond == 0 {
            assert_eq!(left.cpus, expected);
        }
    }
    assert_eq!(left.damage, madt.damage);
    for (at, (before, after)) in input.iter().zip(&table.bytes).enumerate() {
        assert!(before & !3 == after & !3 || at == CHECKSUM, "byte {at} was changed");
    }

    let mut rom = Memory::new(input, 0);
    match withdraw(&mut rom, lost) {
        Ok(()) => assert_eq!(table.bytes, input),
        Err(ReadOnly) => assert_ne!(table.bytes, input),
    }
    rom.assert_few_reads();
}

#[test]
fn cpus_of_the_madt() {
    TARGET.run();
}
