//! The log in memory: a ring of the last [`RING_BYTES`] bytes of the log, with their CRC.

use super::crc::{self, Window};

/// Size of the ring in bytes. With all that is noted about it, a log is exactly [`super::log::LOG_BYTES`] long.
pub const RING_BYTES: usize = 32 * 1024 - 56;

/// The window that the CRC covers is all of the ring.
const WINDOW: Window = Window::new(RING_BYTES);

/// A ring of bytes. Positions count all bytes since boot, so that a reader notices which it has missed.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
#[repr(C)]
pub struct Ring {
    /// The position after the last byte.
    end: u64,
    /// The CRC of all bytes of the ring, from the oldest on. Those that have not been written yet are zeros.
    crc: u32,
    unused: u32,
    bytes: [u8; RING_BYTES],
}

impl Ring {
    /// Returns an empty ring.
    pub const fn new() -> Self {
        Self { end: 0, crc: 0, unused: 0, bytes: [0; RING_BYTES] }
    }

    /// Empties the ring.
    pub fn clear(&mut self) {
        (self.end, self.crc, self.unused) = (0, 0, 0);
        self.bytes.fill(0);
    }

    /// Appends `bytes`. A full ring loses its oldest bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            let old = core::mem::replace(&mut self.bytes[(self.end % RING_BYTES as u64) as usize], byte);
            self.crc = WINDOW.slide(self.crc, old, byte);
            self.end += 1;
        }
    }

    /// Copies bytes from `position` on into `buffer`. Returns the position of the first byte copied and the number of
    /// bytes. The copy starts later than `position` if those bytes have been overwritten, and at the end of the log if
    /// `position` is beyond it.
    pub fn read(&self, position: u64, buffer: &mut [u8]) -> (u64, usize) {
        let start = position.clamp(self.end.saturating_sub(RING_BYTES as u64), self.end);
        let length = buffer.len().min((self.end - start) as usize);
        for (slot, at) in buffer[..length].iter_mut().zip(start..) {
            *slot = self.bytes[(at % RING_BYTES as u64) as usize];
        }
        (start, length)
    }

    /// Returns memory that is full of `number`, for tests.
    #[cfg(test)]
    pub(super) fn filled(number: u64) -> Self {
        Self { end: number, crc: number as u32, unused: number as u32, bytes: [number as u8; RING_BYTES] }
    }

    /// Changes one bit, for tests.
    #[cfg(test)]
    pub(super) fn damage(&mut self) {
        self.bytes[0] ^= 1;
    }

    /// Returns the position after the last byte.
    pub const fn end(&self) -> u64 {
        self.end
    }

    /// Returns the CRC that the ring has of its bytes.
    pub const fn crc(&self) -> u32 {
        self.crc
    }

    /// Returns true if the CRC is that of the bytes.
    pub fn is_whole(&self) -> bool {
        let (new, old) = self.bytes.split_at((self.end % RING_BYTES as u64) as usize);
        crc::of(old.iter().chain(new).copied()) == self.crc
    }
}

impl Default for Ring {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        #[cfg_attr(miri, ignore = "100 KiB take minutes there")]
        fn ring_holds_the_last_bytes_written(
            writes in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..9000), 0..12),
            position in 0u64..100_000,
            length in 0usize..64,
        ) {
            let mut ring = Ring::new();
            let mut all = Vec::new();
            for bytes in &writes {
                ring.push(bytes);
                all.extend_from_slice(bytes);
            }
            let mut buffer = vec![0; length];
            let (start, read) = ring.read(position, &mut buffer);
            let oldest = all.len().saturating_sub(RING_BYTES);
            prop_assert_eq!(start as usize, (position as usize).clamp(oldest, all.len()));
            prop_assert_eq!(read, length.min(all.len() - start as usize));
            prop_assert_eq!(&buffer[..read], &all[start as usize..start as usize + read]);
            prop_assert!(ring.is_whole());
        }

        #[test]
        #[cfg_attr(miri, ignore = "100 KiB take minutes there")]
        fn a_bit_that_has_changed_is_noticed(
            written in 0usize..2 * RING_BYTES,
            at in 0..RING_BYTES,
            bit in 0u8..8,
        ) {
            let mut ring = Ring::new();
            ring.push(&vec![b'x'; written]);
            prop_assert!(ring.is_whole());
            ring.bytes[at] ^= 1 << bit;
            prop_assert!(!ring.is_whole());
        }
    }
}
