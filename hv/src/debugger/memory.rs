//! The guest's memory for the debugger. What is not in the direct map can be read, and not written.

#![expect(unsafe_code, reason = "memory is reached through the direct map")]

use vidar_core::debugger::memory::Memory;
use vidar_core::mem::addr::{Gpa, Hpa};
use vidar_core::mem::layout::direct;
use vidar_core::mem::view::Place;
use vidar_core::mem::walk::ReadGuest;

use crate::host::physical::GuestReader;

/// The guest's memory.
#[derive(Debug)]
pub struct GuestMemory(pub GuestReader);

impl ReadGuest for GuestMemory {
    fn word(&self, address: Gpa) -> Option<u64> {
        self.0.word(address)
    }

    fn page(&self, address: Gpa) -> Option<Hpa> {
        self.0.page(address)
    }
}

impl Memory for GuestMemory {
    fn put(&self, address: Gpa, byte: u8) -> bool {
        let Some(Place::Direct(word)) = self.0.0.place(address.align_down(8)) else { return false };
        let place = direct(word + address.0 % 8).0 as *mut u8;
        // SAFETY: the address is in the direct map and never in Vidar's own memory, in place of which the guest has the
        // decoy. Vidar has no references into the guest's memory. A write to ROM has no effect.
        unsafe {
            place.write_volatile(byte);
            place.read_volatile() == byte
        }
    }
}
