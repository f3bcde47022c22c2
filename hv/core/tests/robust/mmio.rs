//! The decoder of accesses to registers. The first byte of the input chooses the width of the code, the rest is the
//! code.

use std::cell::Cell;

use vidar_core::vmm::fetch::Width;
use vidar_core::vmm::mmio::decode;

use crate::target::Target;

const TARGET: Target = Target::new("mmio", check);

/// The most bytes that an instruction has.
const MAX_LENGTH: usize = 15;

fn check(input: &[u8]) {
    let Some((choice, code)) = input.split_first() else { return };
    let width = [Width::Bits16, Width::Bits32, Width::Bits64][usize::from(*choice) % 3];
    let read = Cell::new(0);
    let counted = code.iter().copied().inspect(|_| read.set(read.get() + 1));
    let found = decode(counted, width);
    assert!(read.get() <= MAX_LENGTH, "{} bytes were read", read.get());
    if let Some(found) = found {
        let length = usize::from(found.length);
        assert!((2..=MAX_LENGTH).contains(&length) && read.get() == length);
        // What follows the instruction does not matter, and without its last byte it is none.
        assert_eq!(decode(code[..length].iter().copied(), width), Some(found));
        assert_eq!(decode(code[..length - 1].iter().copied(), width), None);
    }
    // However many bytes there are, a decoder that finds no end stops.
    let endless = std::iter::repeat(code.first().copied().unwrap_or(0x66));
    let _ = decode(endless, width);
}

#[test]
fn accesses_to_registers() {
    TARGET.run();
}
