//! The packets of gdb's protocol as they come over a serial line: `$`, the contents, `#`, and a checksum of two digits.
//! "Debugging with GDB", E.1 "Overview" of the remote serial protocol.

/// The size of the longest packet in bytes.
pub const SIZE: usize = 4096;

/// The byte that gdb sends at Ctrl-C, outside of any packet.
pub const INTERRUPT: u8 = 3;

/// What has been received with a byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Received {
    /// A part of a packet, or a byte that means nothing.
    Part,
    /// gdb has got the last packet that was sent to it.
    Acknowledged,
    /// gdb has not got the last packet that was sent to it, or not as it was sent.
    Refused,
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
            // In the contents of a packet this byte is escaped. If the packet before has no end, that was lost.
            _ if byte == b'$' => {
                (self.length, self.sum, self.digits) = (0, 0, None);
                self.keep(byte);
                Received::Part
            }
            (0, _) => match byte {
                INTERRUPT => Received::Interrupt,
                b'+' => Received::Acknowledged,
                b'-' => Received::Refused,
                _ => Received::Part,
            },
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

    /// Returns true if a packet has begun and has not ended.
    pub const fn has_begun(&self) -> bool {
        self.length > 0
    }

    /// Drops the packet that has begun, whose rest does not come.
    pub const fn drop_begun(&mut self) {
        self.length = 0;
    }

    /// Returns the byte at `index` of what has just been received.
    pub fn byte(&self, index: usize) -> u8 {
        self.bytes.get(index).copied().unwrap_or_default()
    }

    /// Returns the first `length` bytes of what has just been received.
    pub fn first(&self, length: usize) -> &[u8] {
        self.bytes.get(..length).unwrap_or_default()
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
        assert_eq!(all(&mut packets, b"+$?#3f"), [Received::Acknowledged, Received::Packet(5)]);
        assert_eq!(packets.first(5), b"$?#3f");
        assert_eq!(
            all(&mut packets, b"-\x03$g#67"),
            [Received::Refused, Received::Interrupt, Received::Packet(5)]
        );
        assert_eq!(all(&mut packets, b"$+-#58"), [Received::Packet(6)], "in a packet they are contents");
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

    #[test]
    fn a_packet_whose_end_was_lost_does_not_spoil_the_next() {
        let mut packets = Packets::new();
        for start in [b"$m10".as_slice(), b"$m#", b"$m#6"] {
            assert_eq!(all(&mut packets, start), []);
            assert!(packets.has_begun());
            assert_eq!(all(&mut packets, b"$?#3f"), [Received::Packet(5)]);
            assert_eq!((packets.first(5), packets.has_begun()), (b"$?#3f".as_slice(), false));
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let mut packets = Packets::new();
            all(&mut packets, &bytes);
        }
    }
}
