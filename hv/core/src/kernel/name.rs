//! The name of a symbol.

use core::fmt;

/// The most bytes of a name that are kept. Linux has 512 at most, and Debian's longest has 200.
pub const MAX_NAME: usize = 255;
/// The most characters of a name that messages show: as many as fit into a line.
pub const SHOWN: usize = 45;

/// The name of a symbol, without allocation: printable ASCII only, since it comes from the guest and goes to a
/// terminal.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Name {
    bytes: [u8; MAX_NAME],
    length: u8,
}

impl Name {
    /// Returns an empty name.
    pub const fn new() -> Self {
        Self { bytes: [0; MAX_NAME], length: 0 }
    }

    /// Appends a byte. A byte that does not belong into a name becomes a question mark, and those after [`MAX_NAME`]
    /// are left out.
    pub fn push(&mut self, byte: u8) {
        if let Some(slot) = self.bytes.get_mut(usize::from(self.length)) {
            *slot = if byte.is_ascii_graphic() { byte } else { b'?' };
            self.length += 1;
        }
    }

    /// Returns true if no byte more would be kept.
    pub const fn is_full(&self) -> bool {
        self.length as usize == MAX_NAME
    }

    /// Returns the name as text.
    pub fn as_str(&self) -> &str {
        let bytes = self.bytes.get(..usize::from(self.length)).unwrap_or_default();
        core::str::from_utf8(bytes).unwrap_or_default()
    }
}

impl Default for Name {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(bytes: &[u8]) -> Name {
        let mut name = Name::new();
        bytes.iter().for_each(|byte| name.push(*byte));
        name
    }

    #[test]
    fn nothing_but_printable_ascii_gets_into_a_name() {
        assert_eq!(name(b"panic").as_str(), "panic");
        assert_eq!(name(b"a\x1b[2J b\xff\n").as_str(), "a?[2J?b??");
        assert_eq!(format!("{:>7}|{:?}", name(b"panic"), Name::new()), "  panic|\"\"");
    }

    #[test]
    fn a_long_name_is_cut() {
        assert_eq!(name(&[b'x'; 1000]).as_str().len(), MAX_NAME);
    }
}
