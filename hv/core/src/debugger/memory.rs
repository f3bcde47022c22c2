//! The guest's memory by linear addresses, read and written through the guest's own page tables. The guest is stopped
//! meanwhile, and Vidar's own memory is never seen: the addresses in it show the decoy, as they do to the guest.

use crate::kernel::view::locate;
use crate::mem::addr::{Gpa, PAGE_SIZE};
use crate::mem::walk::ReadGuest;
use crate::policy::control::Controls;

/// The guest's physical memory, for reading and writing.
pub trait Memory: ReadGuest {
    /// Writes one byte. Returns true if memory now holds it, and false if there is no memory that Vidar can write.
    fn put(&self, address: Gpa, byte: u8) -> bool;
}

/// Reads the bytes from `linear` on. Returns how many could be read before the first that is not mapped.
pub fn read(controls: &Controls, memory: &dyn ReadGuest, linear: u64, buffer: &mut [u8]) -> usize {
    let mut page = None;
    for (index, byte) in buffer.iter_mut().enumerate() {
        let at = linear.wrapping_add(index as u64);
        if page.is_none() || at.is_multiple_of(PAGE_SIZE) {
            page = locate(memory, controls, at).map(|address| address.align_down(PAGE_SIZE));
        }
        match page.and_then(|page| physical(memory, page + at % PAGE_SIZE)) {
            Some(found) => *byte = found,
            None => return index,
        }
    }
    buffer.len()
}

/// Returns the byte at a guest-physical address, or `None` if there can be no memory.
pub fn physical(memory: &dyn ReadGuest, address: Gpa) -> Option<u8> {
    memory.word(address.align_down(8)).map(|word| (word >> (address.0 % 8 * 8)) as u8)
}

/// Writes `bytes` from `linear` on. Returns false if not all of them could be written.
pub fn write(controls: &Controls, memory: &dyn Memory, linear: u64, bytes: &[u8]) -> bool {
    let mut addresses = (0..).map(|index| linear.wrapping_add(index));
    bytes
        .iter()
        .zip(&mut addresses)
        .all(|(byte, at)| locate(memory, controls, at).is_some_and(|address| memory.put(address, *byte)))
}

#[cfg(test)]
pub(super) mod tests {
    use core::cell::RefCell;
    use std::collections::BTreeMap;

    use super::*;
    use crate::mem::addr::Hpa;
    use crate::policy::control::{CR0_PE, CR0_PG, CR4_PAE};
    use crate::x86::msr::EFER_LMA;

    /// The guest's memory, of which only the words in it exist.
    #[derive(Debug, Default)]
    pub struct Words(pub RefCell<BTreeMap<u64, u64>>);

    impl ReadGuest for Words {
        fn word(&self, address: Gpa) -> Option<u64> {
            self.0.borrow().get(&address.0).copied()
        }

        fn page(&self, address: Gpa) -> Option<Hpa> {
            Some(Hpa(address.align_down(PAGE_SIZE).0))
        }
    }

    impl Memory for Words {
        fn put(&self, address: Gpa, byte: u8) -> bool {
            let (at, shift) = (address.0 & !7, address.0 % 8 * 8);
            let mut words = self.0.borrow_mut();
            let Some(word) = words.get_mut(&at) else { return false };
            *word = *word & !(0xff << shift) | u64::from(byte) << shift;
            true
        }
    }

    /// The linear address of the only page that [`Words::with_tables`] maps.
    pub const MAPPED: u64 = 0xffff_ffff_8100_0000;

    impl Words {
        /// Returns memory with tables at 1000H that map [`MAPPED`] to 8000H and nothing else, and with words from 8000H
        /// to 8020H.
        pub fn with_tables() -> Self {
            let words = Self::default();
            for (level, table) in [(3, 0x1000u64), (2, 0x3000), (1, 0x4000), (0, 0x5000)] {
                let next = if level == 0 { 0x8000 } else { (table + 0x1000).max(0x3000) };
                words.0.borrow_mut().insert(table + (MAPPED >> (12 + 9 * level) & 511) * 8, next | 1);
            }
            words.0.borrow_mut().extend((0..4).map(|index| (0x8000 + index * 8, 0)));
            words
        }
    }

    /// The controls of a CPU in 64-bit mode with the page tables at `cr3`.
    pub fn controls(cr3: u64) -> Controls {
        Controls { cr0: CR0_PE | CR0_PG, cr3, cr4: CR4_PAE, efer: EFER_LMA, cs_l: true }
    }

    #[test]
    fn bytes_are_written_and_read_through_the_page_tables() {
        let memory = Words::with_tables();
        assert!(write(&controls(0x1000), &memory, MAPPED + 6, b"vidar"));
        assert_eq!(memory.word(Gpa(0x8008)), Some(0x0072_6164), "the end of the word is in the next");
        let mut buffer = [0; 5];
        assert_eq!(read(&controls(0x1000), &memory, MAPPED + 6, &mut buffer), 5);
        assert_eq!(&buffer, b"vidar");
        assert_eq!(read(&controls(0x1000), &memory, MAPPED + 0x1e, &mut buffer), 2, "memory ends there");
        assert_eq!(read(&controls(0x1000), &memory, 0x1234, &mut buffer), 0);
        assert!(!write(&controls(0x1000), &memory, MAPPED + 0x1e, b"vidar"));
    }
}
