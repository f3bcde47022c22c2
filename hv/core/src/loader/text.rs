//! Text from outside, such as a command line.

use core::fmt::{self, Write};

/// Text that a user or a firmware has written. Most of it is UTF-8. Control characters and bytes that are not UTF-8 are
/// displayed as escapes.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Text<'a>(pub &'a [u8]);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.utf8_chunks().try_for_each(|chunk| {
            chunk.valid().chars().try_for_each(|c| match c {
                c if c.is_control() => write!(f, "{}", c.escape_default()),
                c => f.write_char(c),
            })?;
            chunk.invalid().iter().try_for_each(|byte| write!(f, "\\x{byte:02x}"))
        })
    }
}

impl fmt::Debug for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        fmt::Display::fmt(self, f)?;
        f.write_char('"')
    }
}

impl<'a> Text<'a> {
    /// Returns the text up to the first zero byte, or all of `bytes` if there is none.
    pub fn until_zero(bytes: &'a [u8]) -> Self {
        Self(bytes.split(|byte| *byte == 0).next().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_and_other_bytes_are_escaped() {
        assert_eq!(Text("für quiet".as_bytes()).to_string(), "für quiet");
        assert_eq!(Text(b"f\xfcr \"x\"").to_string(), "f\\xfcr \"x\"");
        assert_eq!(Text(b"\x1b[2J\r").to_string(), "\\u{1b}[2J\\r");
        assert_eq!(format!("{:?}", Text(b"a\xff")), "\"a\\xff\"");
    }
}
