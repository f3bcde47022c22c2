//! The text on a screen, which is a grid of characters. It is read from the VGA's text memory or from a picture.

use std::collections::HashMap;

use super::font::Font;
use crate::machine::picture::Picture;

/// The columns and the rows of a VGA's text memory, and the bytes of a cell, which are the character and its colours.
const COLUMNS: usize = 80;
const ROWS: usize = 25;
const CELL: usize = 2;
/// The size of the text memory in bytes.
pub const TEXT_MEMORY: usize = COLUMNS * ROWS * CELL;

/// The text on a screen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text {
    columns: usize,
    /// The characters, row by row.
    cells: Vec<char>,
}

impl Text {
    /// Reads the text memory of a VGA. A zero is shown as a space.
    pub fn in_memory(memory: &[u8]) -> Self {
        let character = |cell: &[u8]| if cell[0] == 0 { ' ' } else { char::from(cell[0]) };
        Self { columns: COLUMNS, cells: memory.chunks_exact(CELL).map(character).collect() }
    }

    /// Reads a picture with text in `font`.
    pub fn in_picture(picture: &Picture, font: &Font) -> Self {
        let columns = (picture.width() / font.width).min(font.most_columns);
        let rows = picture.height() / font.height;
        let margin = |all: usize, used: usize| if font.centred { (all - used) / 2 } else { 0 };
        let left = margin(picture.width(), columns * font.width);
        let top = margin(picture.height(), rows * font.height);
        // Most cells occur several times, so the results are cached.
        let mut known = HashMap::new();
        let mut cells = Vec::new();
        for (row, column) in (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column))) {
            let (left, top) = (left + column * font.width, top + row * font.height);
            let lines = (top..top + font.height).flat_map(|y| (left..left + font.width).map(move |x| (x, y)));
            let cell: Vec<_> = lines.map(|(x, y)| picture.brightness(x, y)).collect();
            cells.push(*known.entry(cell).or_insert_with_key(|cell| font.character(cell.clone())));
        }
        Self { columns, cells }
    }

    /// Returns the rows, without the spaces at their ends.
    pub fn rows(&self) -> Vec<String> {
        let row = |cells: &[char]| cells.iter().collect::<String>().trim_end().to_owned();
        self.cells.chunks(self.columns.max(1)).map(row).collect()
    }

    /// Returns true if `text` is on the screen. It may continue in the next row.
    pub fn shows(&self, text: &str) -> bool {
        self.cells.iter().collect::<String>().contains(text)
    }

    /// Returns true if a row begins with `text`, and nothing comes after it. The text may continue in the next rows.
    pub fn ends_with(&self, text: &str) -> bool {
        let wanted: Vec<_> = text.chars().collect();
        let starts = (0..self.cells.len()).step_by(self.columns.max(1));
        let after = |start: usize| self.cells[start..].strip_prefix(wanted.as_slice());
        starts.filter_map(after).any(|rest| rest.iter().all(|cell| *cell == ' '))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory(lines: &[&str]) -> Text {
        let mut bytes: Vec<_> = lines.iter().flat_map(|line| format!("{line:80}").into_bytes()).collect();
        bytes.resize(COLUMNS * ROWS, 0);
        Text::in_memory(&bytes.into_iter().flat_map(|byte| [byte, 7]).collect::<Vec<_>>())
    }

    /// Returns a picture of `rows`, in which every seventh cell has a wrong pixel.
    fn picture(
        font: &Font,
        (width, height): (usize, usize),
        (left, top): (usize, usize),
        rows: &[&str],
    ) -> Picture {
        let mut grey = vec![0; width * height];
        for (row, line) in rows.iter().enumerate() {
            for (column, character) in line.chars().enumerate() {
                let Some(glyph) = font.glyph(character) else { continue };
                for (at, pixel) in glyph.iter().enumerate() {
                    let (x, y) = (at % font.width, at / font.width);
                    let wrong = column % 7 == 3 && at == column;
                    grey[(top + row * font.height + y) * width + left + column * font.width + x] =
                        if wrong { 255 - pixel } else { *pixel };
                }
            }
        }
        let mut ppm = format!("P6\n{width} {height}\n255\n").into_bytes();
        ppm.extend(grey.into_iter().flat_map(|pixel| [pixel; 3]));
        Picture::from_ppm(&ppm).unwrap()
    }

    #[test]
    fn a_sentence_at_the_end_must_be_complete_and_the_last() {
        let sentence = "cannot start: ".repeat(10);
        let (first, rest) = sentence.trim_end().split_at(COLUMNS);
        let ends = |lines: &[&str]| memory(lines).ends_with(sentence.trim_end());
        assert!(ends(&["hello", first, rest]));
        assert!(ends(&[first, rest]));
        for lines in [
            &[first, "", rest] as &[&str],
            &[first],
            &[" ", rest],
            &[first, rest, "more"],
            &[first, &format!("{rest}\r\n")],
            &["", &first[1..], rest],
        ] {
            assert!(!ends(lines), "{lines:?}");
        }
        let text = memory(&["a", "b", first, rest, "c"]);
        assert!(text.shows(sentence.trim_end()) && !text.shows("ab") && !text.ends_with("b"));
        assert_eq!(text.rows()[..2], ["a", "b"]);
        assert_eq!(text.rows().len(), ROWS);
    }

    #[test]
    fn pictures_are_read_cell_by_cell() {
        let font = Font::vidar();
        let (width, height) = (font.width, font.height);
        let rows = ["vidar: error: it's {so} [4%]", "", "", "  ends in the right corner."];
        let columns = rows[3].len().max(rows[0].len());
        // The screen has some more pixels at the right and at the bottom.
        let size = (columns * width + 3, rows.len() * height + 9);
        let text = Text::in_picture(&picture(&font, size, (0, 0), &rows), &font);
        assert_eq!(text.rows(), rows);
        let mut centred = font.clone();
        centred.centred = true;
        assert_eq!(Text::in_picture(&picture(&font, size, (1, 4), &rows), &centred).rows(), rows);
        assert_ne!(Text::in_picture(&picture(&font, size, (3, 4), &rows), &font).rows(), rows);
        let mut narrow = font.clone();
        narrow.most_columns = 6;
        assert_eq!(Text::in_picture(&picture(&font, size, (0, 0), &rows), &narrow).rows()[0], "vidar:");
        assert!(Text::in_picture(&picture(&font, (2, 2), (0, 0), &[]), &font).rows().is_empty());
    }

    #[test]
    fn a_sentence_that_wraps_in_a_picture_is_found() {
        let font = Font::vidar();
        let size = (10 * font.width, 3 * font.height);
        let text =
            Text::in_picture(&picture(&font, size, (0, 0), &["vidar: no ", "kernel was", " given"]), &font);
        assert!(text.ends_with("vidar: no kernel was given") && text.shows("kernel was given"));
        assert!(!text.ends_with("kernel was"));
    }
}
