//! The I/O ports of the UART at which gdb debugs the guest. The guest finds nothing there, so it cannot change the UART
//! while gdb uses it.

use crate::mem::addr::PAGE_SIZE;
use crate::vmm::outcome::{Outcome, REFUSE};
use crate::x86::registers::{Register, Registers};

/// The number of a UART's ports. The first one is a multiple of it.
pub const PORTS: u16 = 8;

/// The number of frames of a map of ports, in which bit n of the first 8 KiB says if accesses to port n exit. AMD-V
/// also has bits for an access of several bytes at the last port: AMD APM Vol. 2, 15.10.1 "I/O Permissions Map". VT-x
/// takes two bitmaps, of which the second one follows the first: Intel SDM Vol. 3C, 25.6.4 "I/O-Bitmap Addresses".
pub const MAP_FRAMES: usize = 3;

/// Returns the offset in a map of ports of the byte whose bits are those of the UART at `first`.
pub const fn place_in_map(first: u16) -> u64 {
    assert!(first.is_multiple_of(PORTS), "no UART begins at this port");
    let place = (first / PORTS) as u64;
    assert!(place < 2 * PAGE_SIZE, "every port has a bit in the first two frames");
    place
}

/// An access to one of these ports, and perhaps to ports beside them. On VT-x an access that goes on from port FFFFH to
/// port 0 exits as well, wherever the UART is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortAccess {
    /// True for IN and INS.
    pub reads: bool,
    /// True for INS and OUTS, with a repeat prefix or without.
    pub is_string: bool,
    /// The number of bytes that IN reads into AL, AX or EAX.
    pub bytes: u8,
    /// The number of bytes of the instruction.
    pub length: u8,
}

impl PortAccess {
    /// Executes the instruction as if nothing were at the ports: what is read is all ones, and what is written is lost.
    /// INS and OUTS are refused, since no driver uses them for a UART.
    #[cold]
    pub fn answer(&self, registers: &mut Registers) -> Outcome {
        if self.is_string {
            return REFUSE;
        }
        if self.reads {
            let rax = registers.get(Register::Rax);
            registers.set(
                Register::Rax,
                match self.bytes {
                    1 => rax | 0xff,
                    2 => rax | 0xffff,
                    _ => 0xffff_ffff, // as of every result of 32 bits, the upper half is 0
                },
            );
        }
        Outcome::Skip(self.length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(reads: bool, is_string: bool, bytes: u8) -> (Outcome, u64) {
        let mut registers = Registers::default();
        registers.set(Register::Rax, 0x1122_3344_5566_7700);
        let outcome = PortAccess { reads, is_string, bytes, length: 2 }.answer(&mut registers);
        (outcome, registers.get(Register::Rax))
    }

    #[test]
    fn nothing_is_at_the_ports() {
        assert_eq!(answered(true, false, 1), (Outcome::Skip(2), 0x1122_3344_5566_77ff));
        assert_eq!(answered(true, false, 2), (Outcome::Skip(2), 0x1122_3344_5566_ffff));
        assert_eq!(answered(true, false, 4), (Outcome::Skip(2), 0xffff_ffff));
        for bytes in [1, 2, 4] {
            assert_eq!(answered(false, false, bytes), (Outcome::Skip(2), 0x1122_3344_5566_7700));
            assert_eq!(answered(true, true, bytes), (REFUSE, 0x1122_3344_5566_7700));
        }
    }

    #[test]
    fn a_uart_has_a_byte_of_the_map() {
        assert_eq!([0, 0x2f8, 0x3f8, 0xfff8].map(place_in_map), [0, 0x5f, 0x7f, 0x1fff]);
    }
}
