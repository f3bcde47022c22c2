//! The first page of the machine's memory, which holds the interrupt vectors of real mode.
//!
//! A CPU that starts is in real mode until it has left Vidar's trampoline. An NMI that it takes there, or already while
//! it waits for its start-up IPI as in QEMU, leads where the table at physical address 0 says, since INIT has set IDTR
//! to that base: Intel SDM Vol. 3A, 10.1.1 "Processor State After Reset", and Vol. 3B, 21.1.4 "Interrupt and
//! Exception Handling". If the table were the guest's, its kernel could have a CPU outside of Vidar. So where that must
//! not be, the guest's first page lies elsewhere ([`MovedPages`](crate::mem::moved::MovedPages)), and each vector in the
//! machine's leads to the trampoline, which begins anew.
//!
//! The guest loses nothing. Linux reserves the page, so that no device writes to it, and reads what the BIOS has left
//! in it (arch/x86/kernel/setup.c, trim_bios_range()). What SMM finds in the machine's page is the same but for the
//! vectors, which are for real mode alone. A start-up IPI that names the page is sent by Vidar with another vector.

use core::ops::Range;

use crate::mem::addr::{Hpa, PAGE_SIZE};

/// The page.
pub const PAGE: Range<Hpa> = Hpa(0)..Hpa(PAGE_SIZE);

/// The number of vectors.
const VECTORS: usize = 256;
/// The size in bytes of a vector: an offset and a segment.
const SIZE: usize = 4;
/// The address at which a CPU halts that has nowhere to go: after the vectors and the BIOS's data.
const HALT: u16 = 0x600;
/// Halts for good: cli; hlt; jmp to the hlt.
const HALTS: [u8; 4] = [0xfa, 0xf4, 0xeb, 0xfd];

/// What is written to the page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Content {
    /// The vectors, at the start of the page.
    pub vectors: [u8; VECTORS * SIZE],
    /// Code, and the address at which it lies. Vectors lead to it if there is no trampoline.
    pub halt: (Hpa, [u8; HALTS.len()]),
}

/// Returns what the page holds if the trampoline's page has the number `trampoline`, or if there is no trampoline.
pub fn content(trampoline: Option<u8>) -> Content {
    let [segment, offset] = match trampoline {
        Some(page) => [u16::from(page) << 8, 0],
        None => [0, HALT],
    };
    let vector = u32::from(segment) << 16 | u32::from(offset);
    let mut vectors = [0; VECTORS * SIZE];
    vectors.chunks_exact_mut(SIZE).for_each(|place| place.copy_from_slice(&vector.to_le_bytes()));
    Content { vectors, halt: (Hpa(HALT.into()), HALTS) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the linear address to which a CPU in real mode goes by a vector.
    fn target(content: &Content, vector: usize) -> u64 {
        let word = |at: usize| u64::from(content.vectors[at]) | u64::from(content.vectors[at + 1]) << 8;
        (word(4 * vector + 2) << 4) + word(4 * vector)
    }

    #[test]
    fn every_vector_leads_to_the_trampoline() {
        let content = content(Some(0x9e));
        assert!((0..256).all(|vector| target(&content, vector) == 0x9_e000));
    }

    #[test]
    fn without_a_trampoline_every_vector_leads_to_a_halt() {
        let content = content(None);
        let (at, code) = content.halt;
        assert!((0..256).all(|vector| target(&content, vector) == at.0));
        assert!(PAGE.contains(&at) && at.0 >= content.vectors.len() as u64 + 0x200);
        // The jump is relative to its end.
        assert_eq!(code[(4 + i32::from(code[3] as i8)) as usize], 0xf4);
    }
}
