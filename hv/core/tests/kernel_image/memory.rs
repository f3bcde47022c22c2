//! Memory that counts how often it is read.

use std::cell::Cell;

use vidar_core::mem::addr::{Gpa, Hpa};
use vidar_core::mem::ranges::RangeSet;
use vidar_core::mem::walk::ReadGuest;

/// Memory from address 0 on.
pub struct Memory {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// How many words have been read.
    pub reads: Cell<u64>,
}

impl Memory {
    /// Returns memory of zeros.
    pub fn new(bytes: usize) -> Self {
        Self::of(vec![0; bytes])
    }

    /// Returns memory of these bytes.
    pub fn of(bytes: Vec<u8>) -> Self {
        Self { bytes, reads: Cell::new(0) }
    }

    /// Writes bytes.
    pub fn write(&mut self, at: u64, bytes: &[u8]) {
        let at = at as usize;
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// Writes a word.
    pub fn set(&mut self, at: u64, word: u64) {
        self.write(at, &word.to_le_bytes());
    }

    /// Returns all of the memory as the kernel uses it.
    pub fn ram(&self) -> RangeSet {
        RangeSet::from([Hpa(0)..Hpa(self.bytes.len() as u64)])
    }
}

impl ReadGuest for Memory {
    fn word(&self, address: Gpa) -> Option<u64> {
        assert_eq!(address.0 % 8, 0, "only whole words");
        self.reads.set(self.reads.get() + 1);
        let rest = self.bytes.get(usize::try_from(address.0).ok()?..)?;
        Some(u64::from_le_bytes(*rest.first_chunk()?))
    }

    fn page(&self, _: Gpa) -> Option<Hpa> {
        None
    }
}
