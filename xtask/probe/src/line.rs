//! The result of a scenario. It is one line, which is printed when it is complete, so that nothing else is printed
//! inside of it.

use core::fmt::{self, Display, Write};

/// A line that scenarios add to. Text that does not fit is cut off.
pub struct Line {
    text: [u8; 4096],
    length: usize,
}

impl Line {
    /// Returns an empty line.
    pub const fn new() -> Self {
        Self { text: [0; 4096], length: 0 }
    }

    /// Returns its text.
    pub fn text(&self) -> &str {
        core::str::from_utf8(&self.text[..self.length]).unwrap_or("not UTF-8")
    }

    /// Removes its text.
    pub fn clear(&mut self) {
        self.length = 0;
    }

    /// Adds a word.
    pub fn word(&mut self, word: impl Display) {
        if self.length > 0 {
            let _ = self.write_char(' ');
        }
        // Writing to the line cannot fail.
        let _ = write!(self, "{word}");
    }

    /// Adds `name=value`.
    pub fn item(&mut self, name: impl Display, value: impl Display) {
        self.word(format_args!("{name}={value}"));
    }
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            if let Some(slot) = self.text.get_mut(self.length) {
                *slot = byte;
                self.length += 1;
            }
        }
        Ok(())
    }
}
