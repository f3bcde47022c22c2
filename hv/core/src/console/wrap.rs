//! Breaks the long lines of a report between words, so that a screen of 80 columns shows each of them whole.

use core::fmt::{self, Write};

/// The longest line in bytes. A character in the last of 80 columns would already move the cursor to the next row.
pub const WIDTH: usize = 79;

/// What a line begins with that continues the one before.
const INDENT: &str = "    ";

/// The longest piece of text that stays together.
const LONGEST_WORD: usize = WIDTH - INDENT.len();

/// Passes text on to `W`, and begins a new line in place of the space before a word that does not fit any more.
///
/// A word is passed on when the space or line end after it arrives, so the last text must end with a line end.
#[derive(Debug)]
pub struct Wrapped<W> {
    out: W,
    /// The number of bytes in the current line.
    column: usize,
    /// The number of spaces that come before the word.
    spaces: usize,
    /// The word that has not been passed on yet, and its length.
    word: [u8; LONGEST_WORD],
    length: usize,
}

impl<W: Write> Wrapped<W> {
    /// Returns a writer that begins at the start of a line of `out`.
    pub const fn new(out: W) -> Self {
        Self { out, column: 0, spaces: 0, word: [0; LONGEST_WORD], length: 0 }
    }

    /// Returns what the text was passed on to.
    pub fn into_inner(self) -> W {
        self.out
    }

    fn add(&mut self, character: char) -> fmt::Result {
        let mut bytes = [0; 4];
        let bytes = character.encode_utf8(&mut bytes).as_bytes();
        if self.length + bytes.len() > LONGEST_WORD {
            self.pass_on()?;
        }
        self.word[self.length..self.length + bytes.len()].copy_from_slice(bytes);
        self.length += bytes.len();
        Ok(())
    }

    /// Passes the word on, in the current line or in a new one.
    fn pass_on(&mut self) -> fmt::Result {
        if self.length == 0 {
            return Ok(());
        }
        if self.column > 0 && self.column + self.spaces + self.length > WIDTH {
            self.out.write_char('\n')?;
            self.out.write_str(INDENT)?;
            (self.column, self.spaces) = (INDENT.len(), 0);
        }
        for _ in 0..self.spaces {
            self.out.write_char(' ')?;
        }
        // The word consists of whole characters.
        self.out.write_str(core::str::from_utf8(&self.word[..self.length]).unwrap_or_default())?;
        self.column += self.spaces + self.length;
        (self.spaces, self.length) = (0, 0);
        Ok(())
    }
}

impl<W: Write> Write for Wrapped<W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.chars().try_for_each(|character| match character {
            ' ' => {
                self.pass_on()?;
                self.spaces = (self.spaces + 1).min(WIDTH - LONGEST_WORD);
                Ok(())
            }
            '\n' => {
                self.pass_on()?;
                (self.column, self.spaces) = (0, 0);
                self.out.write_char('\n')
            }
            _ => self.add(character),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn wrapped(pieces: &[&str]) -> String {
        let mut out = String::new();
        let mut writer = Wrapped::new(&mut out);
        pieces.iter().for_each(|piece| writer.write_str(piece).unwrap());
        out
    }

    #[test]
    fn short_lines_stay_as_they_are() {
        for text in ["\n", "vidar: error: short\n", "  rip 1  cs 2\n\n    deep\n"] {
            assert_eq!(wrapped(&[text]), text);
        }
    }

    #[test]
    fn a_long_line_continues_indented_on_the_next() {
        let text = format!("{} bb cc\n", "a".repeat(WIDTH - 3));
        assert_eq!(wrapped(&[&text]), format!("{} bb\n    cc\n", "a".repeat(WIDTH - 3)));
    }

    #[test]
    fn a_word_that_arrives_in_pieces_stays_together() {
        let line = "a".repeat(WIDTH - 3);
        assert_eq!(wrapped(&[&line, " ", "b", "bb", "\n"]), format!("{line}\n    bbb\n"));
    }

    proptest! {
        #[test]
        fn no_line_is_too_long_and_no_word_is_lost(text in "([a-zä]{0,100}[ \n]{0,3}){0,30}") {
            let out = wrapped(&[&text, "\n"]);
            prop_assert!(out.lines().all(|line| line.len() <= WIDTH), "{out}");
            let letters = |text: &str| text.chars().filter(|c| !c.is_whitespace()).collect::<String>();
            prop_assert_eq!(letters(&out), letters(&text));
        }
    }
}
