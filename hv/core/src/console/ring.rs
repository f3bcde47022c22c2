//! The log in memory: a ring of the last [`RING_BYTES`] bytes of the log.

/// Size of the ring in bytes.
pub const RING_BYTES: usize = 32 * 1024;

/// A ring of bytes. Positions count all bytes since boot, so that a reader notices which it has missed.
#[derive(Debug)]
pub struct Ring {
    bytes: [u8; RING_BYTES],
    /// The position after the last byte.
    end: u64,
}

impl Ring {
    /// Returns an empty ring.
    pub const fn new() -> Self {
        Self { bytes: [0; RING_BYTES], end: 0 }
    }

    /// Appends `bytes`. A full ring loses its oldest bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.bytes[(self.end % RING_BYTES as u64) as usize] = byte;
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
        }
    }
}
