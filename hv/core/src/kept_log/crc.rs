//! The CRC of the last bytes of a stream: CRC-32 with the polynomial of Ethernet, from zero on and without a final
//! inversion.
//!
//! Such a CRC is linear. So a byte that leaves the window can be taken out of it, and the CRC of the whole window
//! follows each byte at the same small price, however long the window is.

/// The polynomial, with its lowest power in the highest bit (ISO/IEC/IEEE 8802-3, 3.2.9 "Frame Check Sequence field").
const POLYNOMIAL: u32 = 0xedb8_8320;

/// Returns the CRC after one more bit, which is 0.
const fn shift(crc: u32) -> u32 {
    crc >> 1 ^ if crc & 1 == 1 { POLYNOMIAL } else { 0 }
}

/// Returns the CRC after one more byte.
pub const fn step(crc: u32, byte: u8) -> u32 {
    let mut crc = crc ^ byte as u32;
    let mut bit = 0;
    while bit < 8 {
        crc = shift(crc);
        bit += 1;
    }
    crc
}

/// Returns the CRC of `bytes`.
pub fn of(bytes: impl IntoIterator<Item = u8>) -> u32 {
    bytes.into_iter().fold(0, step)
}

/// What a byte adds to the CRC of the bytes that follow it, if they are as many as the window is long: one value for
/// each bit of the byte.
#[derive(Debug, Clone, Copy)]
pub struct Window([u32; 8]);

impl Window {
    /// Returns the values for a window of `length` bytes.
    pub const fn new(length: usize) -> Self {
        // The highest bit of a byte comes last.
        let mut crc = step(0, 1 << 7);
        let mut after = 0;
        while after < length {
            crc = step(crc, 0);
            after += 1;
        }
        let mut parts = [0; 8];
        let mut bit = 8;
        while bit > 0 {
            bit -= 1;
            parts[bit] = crc;
            crc = shift(crc);
        }
        Self(parts)
    }

    /// Returns the CRC of the window after it has lost the byte `old` at its start and got the byte `new` at its end.
    pub fn slide(&self, crc: u32, old: u8, new: u8) -> u32 {
        let bits = self.0.iter().enumerate().filter(|(bit, _)| old >> bit & 1 == 1);
        bits.fold(step(crc, new), |crc, (_, part)| crc ^ part)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_step_is_that_of_the_usual_crc_32() {
        assert_eq!(!b"123456789".iter().fold(!0, |crc, byte| step(crc, *byte)), 0xcbf4_3926);
    }

    proptest! {
        #[test]
        fn a_window_that_slides_has_the_crc_of_its_bytes(bytes in proptest::collection::vec(any::<u8>(), 8..64)) {
            const WINDOW: Window = Window::new(8);
            let mut crc = of(bytes[..8].iter().copied());
            for (start, new) in (1..).zip(&bytes[8..]) {
                crc = WINDOW.slide(crc, bytes[start - 1], *new);
                prop_assert_eq!(crc, of(bytes[start..start + 8].iter().copied()));
            }
        }
    }
}
