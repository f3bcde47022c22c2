//! The fonts on the screens of machines. Recognises the character in a cell of pixels.

use std::fs;

use anyhow::{Context, Result};
use noto_sans_mono_bitmap::{FontWeight, RasterHeight, get_raster, get_raster_width};

use crate::packages;

/// The characters that are recognised: the printable ones of ASCII without the space, which is an empty cell.
const CHARACTERS: std::ops::RangeInclusive<char> = '!'..='~';
/// The character for a cell that is not recognised.
pub const UNKNOWN: char = char::REPLACEMENT_CHARACTER;

/// A cell is empty if its darkest and its brightest pixel differ by less than this.
const LEAST_CONTRAST: u8 = 32;
/// The largest mean difference between the pixels of a cell and those of the character that it is recognised as.
const MOST_DISTANCE: usize = 24;

/// The lines of a glyph of the VGA's font. Each line is a byte, with a bit for each pixel.
const VGA_HEIGHT: usize = 16;
/// The glyph of the letter A in the VGA's font, by which the font is found in a BIOS.
const VGA_A: [u8; VGA_HEIGHT] =
    [0, 0, 0x10, 0x38, 0x6c, 0xc6, 0xc6, 0xfe, 0xc6, 0xc6, 0xc6, 0xc6, 0, 0, 0, 0];

/// The size of an EFI_NARROW_GLYPH, which has two bytes for the character, one for attributes, and 19 for the lines,
/// and the number of these lines. UEFI Specification 2.10, 33.3.3.2.
const NARROW_GLYPH: usize = 22;
const NARROW_LINES: usize = 19;

/// A font, and the layout of its cells on a screen.
#[derive(Debug, Clone)]
pub struct Font {
    /// The width of a cell in pixels.
    pub width: usize,
    /// The height of a cell in pixels.
    pub height: usize,
    /// The largest number of columns that are used.
    pub most_columns: usize,
    /// True if the grid of cells is in the middle of the screen, and not at the top left.
    pub centred: bool,
    /// For each character, the brightness of the pixels from 0 to 255, line by line.
    glyphs: Vec<(char, Vec<u8>)>,
}

impl Font {
    /// Returns the font that Vidar uses on a framebuffer.
    pub fn vidar() -> Self {
        const WEIGHT: FontWeight = FontWeight::Regular;
        const HEIGHT: RasterHeight = RasterHeight::Size16;
        let glyph = |character| Some((character, get_raster(character, WEIGHT, HEIGHT)?.pixels().to_vec()));
        let (width, glyphs) = (get_raster_width(WEIGHT, HEIGHT), CHARACTERS.filter_map(glyph).collect());
        Self::new(width, HEIGHT.val(), 160, false, glyphs)
    }

    /// Returns the font that Linux uses on a framebuffer, which is the VGA's.
    pub fn linux() -> Result<Self> {
        Ok(Self::of_bits(8, VGA_HEIGHT, false, &vga()?))
    }

    /// Returns the font of a VGA in text mode, in which a cell has an additional, empty column of pixels.
    pub fn text_mode() -> Result<Self> {
        Ok(Self::of_bits(9, VGA_HEIGHT, false, &vga()?))
    }

    /// Returns the font of UEFI firmware, if it is in this memory. It is a table with a glyph for each character in
    /// turn.
    pub fn firmware(memory: &[u8]) -> Option<Self> {
        let code = |at: usize| Some(u16::from_le_bytes(memory.get(at..at + 2)?.try_into().ok()?));
        let first = *CHARACTERS.start() as u16;
        let is_table = |at: &usize| {
            memory[*at] == first as u8
                && CHARACTERS
                    .enumerate()
                    .all(|(index, character)| code(at + index * NARROW_GLYPH) == Some(character as u16))
        };
        let table = &memory[(0..memory.len()).find(is_table)?..];
        let lines = |glyph: &[u8]| glyph[NARROW_GLYPH - NARROW_LINES..].to_vec();
        let glyphs: Vec<_> = CHARACTERS.zip(table.chunks_exact(NARROW_GLYPH).map(lines)).collect();
        Some(Self::of_bits(8, NARROW_LINES, true, &glyphs))
    }

    fn new(
        width: usize,
        height: usize,
        most_columns: usize,
        centred: bool,
        mut glyphs: Vec<(char, Vec<u8>)>,
    ) -> Self {
        glyphs.iter_mut().for_each(|(_, pixels)| stretch(pixels));
        Self { width, height, most_columns, centred, glyphs }
    }

    /// Returns a font of glyphs that have a byte for each line, with the leftmost pixel in the highest bit.
    fn of_bits(width: usize, height: usize, centred: bool, glyphs: &[(char, Vec<u8>)]) -> Self {
        let bit = |line: u8, x: usize| if x < 8 && line & (0x80 >> x) != 0 { 255 } else { 0 };
        let pixels =
            |lines: &Vec<u8>| lines.iter().flat_map(|line| (0..width).map(|x| bit(*line, x))).collect();
        let glyphs = glyphs.iter().map(|(character, lines)| (*character, pixels(lines))).collect();
        Self::new(width, height, usize::MAX, centred, glyphs)
    }

    /// Returns the character that is most similar to a cell, which may be bright on dark or dark on bright. [`UNKNOWN`]
    /// if none is similar enough.
    pub fn character(&self, mut cell: Vec<u8>) -> char {
        let (darkest, brightest) = extremes(&cell);
        if brightest - darkest < LEAST_CONTRAST {
            return ' ';
        }
        stretch(&mut cell);
        let distance = |pixels: &[u8]| {
            let (as_is, sum) = pixels.iter().zip(&cell).fold((0, 0), |(distance, sum), (one, other)| {
                (distance + usize::from(one.abs_diff(*other)), sum + usize::from(one.abs_diff(255 - *other)))
            });
            as_is.min(sum)
        };
        let closest = self.glyphs.iter().map(|(character, pixels)| (distance(pixels), *character)).min();
        closest
            .filter(|(distance, _)| *distance <= MOST_DISTANCE * cell.len())
            .map_or(UNKNOWN, |(_, found)| found)
    }

    /// Returns the pixels of a character.
    #[cfg(test)]
    pub fn glyph(&self, character: char) -> Option<&[u8]> {
        self.glyphs.iter().find(|(other, _)| *other == character).map(|(_, pixels)| pixels.as_slice())
    }
}

fn extremes(pixels: &[u8]) -> (u8, u8) {
    pixels.iter().fold((255, 0), |(darkest, brightest), pixel| (darkest.min(*pixel), brightest.max(*pixel)))
}

/// Makes the darkest pixel black and the brightest white.
fn stretch(pixels: &mut [u8]) {
    let (darkest, brightest) = extremes(pixels);
    let range = u32::from(brightest.saturating_sub(darkest)).max(1);
    for pixel in pixels {
        *pixel = (u32::from(*pixel - darkest) * 255 / range) as u8;
    }
}

/// Returns the font of the VGA, from a VGA BIOS.
fn vga() -> Result<Vec<(char, Vec<u8>)>> {
    let path = packages::vga_bios();
    let bios = fs::read(path).with_context(|| format!("cannot read {path}"))?;
    vga_in(&bios).with_context(|| format!("{path} does not contain a font of 16 lines"))
}

fn vga_in(bios: &[u8]) -> Option<Vec<(char, Vec<u8>)>> {
    let at = bios.windows(VGA_HEIGHT).position(|bytes| bytes == VGA_A)?;
    let start = at.checked_sub('A' as usize * VGA_HEIGHT)?;
    let glyph = |character: char| {
        let at = start + character as usize * VGA_HEIGHT;
        Some((character, bios.get(at..at + VGA_HEIGHT)?.to_vec()))
    };
    CHARACTERS.map(glyph).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Invented glyphs, all of them different.
    fn made_up() -> Vec<(char, Vec<u8>)> {
        let line = |character: char, y: usize| {
            (character as usize * 37 + y * 101 + character as usize * y * 7) as u8
        };
        CHARACTERS.map(|character| (character, (0..16).map(|y| line(character, y)).collect())).collect()
    }

    #[test]
    fn a_cell_with_a_wrong_pixel_is_recognised() {
        for font in
            [Font::vidar(), Font::of_bits(8, 16, false, &made_up()), Font::of_bits(9, 16, false, &made_up())]
        {
            assert_eq!(font.glyphs.len(), 94);
            for (index, character) in CHARACTERS.enumerate() {
                let right = font.glyph(character).unwrap().to_vec();
                let mut wrong = right.clone();
                let at = index * 11 % wrong.len();
                wrong[at] = 255 - wrong[at];
                let inverse = right.iter().map(|pixel| 255 - pixel).collect();
                let dim = right.iter().map(|pixel| 20 + pixel / 2).collect();
                for cell in [right, wrong, inverse, dim] {
                    assert_eq!(font.character(cell), character);
                }
            }
            assert_eq!(font.character(vec![7; font.width * font.height]), ' ');
            let stripes = (0..font.width * font.height).map(|at| (at % 2 * 255) as u8).collect();
            assert_eq!(font.character(stripes), UNKNOWN);
        }
    }

    #[test]
    fn the_font_of_the_vga_is_found_in_a_bios() {
        let mut bios = vec![0xee; 100];
        (0..=255_u8).for_each(|code| bios.extend([code; VGA_HEIGHT]));
        assert_eq!(vga_in(&bios), None);
        let at = 100 + 'A' as usize * VGA_HEIGHT;
        bios[at..at + VGA_HEIGHT].copy_from_slice(&VGA_A);
        let font = vga_in(&bios).unwrap();
        assert_eq!((font.len(), &font[0], &font[93]), (94, &('!', vec![b'!'; 16]), &('~', vec![b'~'; 16])));
        assert_eq!(vga_in(&bios[..at + VGA_HEIGHT]), None, "the font is cut off");
        assert_eq!(vga_in(&bios[at - 16..]), None, "the beginning of the font is missing");
    }

    #[test]
    fn the_font_of_firmware_is_found_in_memory() {
        let mut memory = vec![b'!', 0, b'!', 0, 7];
        for (character, mut lines) in made_up() {
            memory.extend([character as u8, 0, 1]);
            lines.resize(NARROW_LINES, 0);
            memory.extend(lines);
        }
        let font = Font::firmware(&memory).unwrap();
        let a = Font::of_bits(8, 16, false, &made_up()).glyph('a').unwrap().to_vec();
        assert_eq!(font.glyph('a').unwrap()[..a.len()], a);
        assert!(Font::firmware(&memory[..memory.len() - 21]).is_none());
    }
}
