//! The packets of gdb's protocol as they come over a serial line: `$`, the contents, `#`, and a checksum of two digits.
//! "Debugging with GDB", E.1 "Overview" of the remote serial protocol.

/// The size of the longest packet in bytes.
pub const SIZE: usize = 4096;

/// The byte that gdb sends at Ctrl-C, outside of any packet.
pub const INTERRUPT: u8 = 3;

/// What has been received with a byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Received {
    /// A part of a packet, or a byte that means nothing, such as an acknowledgement.
    Part,
    /// Ctrl-C.
    Interrupt,
    /// The last byte of a packet with this many bytes.
    Packet(usize),
    /// The last byte of a packet that is too long or whose checksum is wrong. gdb sends it again if it is asked to.
    Spoiled,
}

/// The packet that is being received.
#[derive(Debug)]
pub struct Packets {
    bytes: [u8; SIZE],
    length: usize,
    sum: u8,
    /// The digits of the checksum that are still to come, once the contents have ended.
    digits: Option<u8>,
}

impl Packets {
    /// Returns the state before the first byte.
    pub const fn new() -> Self {
        Self { bytes: [0; SIZE], length: 0, sum: 0, digits: None }
    }

    /// Takes the next byte from the line.
    pub fn take(&mut self, byte: u8) -> Received {
        match (self.length, self.digits) {
            (0, _) if byte == b'$' => {
                (self.sum, self.digits) = (0, None);
                self.keep(byte);
                Received::Part
            }
            (0, _) if byte == INTERRUPT => Received::Interrupt,
            (0, _) => Received::Part,
            (_, None) => {
                match byte {
                    b'#' => self.digits = Some(2),
                    _ => self.sum = self.sum.wrapping_add(byte),
                }
                self.keep(byte);
                Received::Part
            }
            (_, Some(2)) => {
                self.digits = Some(1);
                self.keep(byte);
                Received::Part
            }
            _ => {
                self.keep(byte);
                let length = core::mem::take(&mut self.length);
                if length <= SIZE && self.checksum(length) == Some(self.sum) {
                    Received::Packet(length)
                } else {
                    Received::Spoiled
                }
            }
        }
    }

    /// Returns the byte at `index` of what has just been received.
    pub fn byte(&self, index: usize) -> u8 {
        self.bytes.get(index).copied().unwrap_or_default()
    }

    /// Returns true if what has just been received begins with `bytes`.
    pub fn begins_with(&self, bytes: &[u8]) -> bool {
        self.bytes.starts_with(bytes)
    }

    /// Adds a byte. One that does not fit is only counted.
    fn keep(&mut self, byte: u8) {
        if let Some(place) = self.bytes.get_mut(self.length) {
            *place = byte;
        }
        self.length = self.length.saturating_add(1);
    }

    /// Returns the checksum at the end of a packet of `length` bytes.
    fn checksum(&self, length: usize) -> Option<u8> {
        let digit = |at: usize| char::from(self.bytes[at]).to_digit(16).map(|digit| digit as u8);
        Some(digit(length - 2)? << 4 | digit(length - 1)?)
    }
}

impl Default for Packets {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(packets: &mut Packets, bytes: &[u8]) -> Vec<Received> {
        let received = bytes.iter().map(|byte| packets.take(*byte));
        received.filter(|received| *received != Received::Part).collect()
    }

    #[test]
    fn whole_packets_are_received_and_acknowledgements_are_not_packets() {
        let mut packets = Packets::new();
        assert_eq!(all(&mut packets, b"+$?#3f"), [Received::Packet(5)]);
        assert_eq!([packets.byte(0), packets.byte(4)], [b'$', b'f']);
        assert_eq!(all(&mut packets, b"+-\x03$g#67"), [Received::Interrupt, Received::Packet(5)]);
        assert_eq!(
            all(&mut packets, b"$X8,1:\x03#2a"),
            [Received::Packet(10)],
            "a byte in a packet is no Ctrl-C"
        );
    }

    #[test]
    fn a_spoiled_packet_is_asked_for_again() {
        let mut packets = Packets::new();
        assert_eq!(
            all(&mut packets, b"$?#3e$?#zz$?#3f"),
            [Received::Spoiled, Received::Spoiled, Received::Packet(5)]
        );
        let long = [b"$".as_slice(), &[b'a'; SIZE], b"#00"].concat();
        assert_eq!(all(&mut packets, &long), [Received::Spoiled]);
        assert_eq!(all(&mut packets, b"$?#3f"), [Received::Packet(5)]);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let mut packets = Packets::new();
            all(&mut packets, &bytes);
        }
    }
}
