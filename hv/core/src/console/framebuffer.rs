//! A linear framebuffer as a grid of characters, which are drawn with a bitmap font.

use alloc::vec;
use alloc::vec::Vec;
use core::iter::repeat_n;

use noto_sans_mono_bitmap::{FontWeight, RasterHeight, get_raster, get_raster_width};

use super::screen::Grid;

const WEIGHT: FontWeight = FontWeight::Regular;
const HEIGHT: RasterHeight = RasterHeight::Size16;
/// Width of a character in the font, in pixels.
const CELL_WIDTH: usize = get_raster_width(WEIGHT, HEIGHT);
/// Height of a character in the font, in pixels.
const CELL_HEIGHT: usize = HEIGHT.val();

/// From this width in pixels on, a screen is taken to have twice the usual pixel density, and characters are drawn at
/// twice the size.
const DENSE: usize = 2560;

/// Size of the largest grid. A larger one would take more memory to keep track of than there is, and nobody reads that
/// much.
const MAX_COLUMNS: usize = 160;
const MAX_ROWS: usize = 64;

/// The bits of a pixel that hold one colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Channel {
    /// Number of the lowest bit.
    pub position: u8,
    /// Number of bits.
    pub size: u8,
}

impl Channel {
    /// Returns the bits of a pixel for `intensity`, where 255 is the brightest.
    const fn of(self, intensity: u8) -> u32 {
        let value = intensity as u32;
        let value = if self.size < 8 { value >> (8 - self.size) } else { value << (self.size - 8) };
        value << self.position
    }
}

/// The format of a framebuffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Format {
    /// Width in pixels.
    pub width: usize,
    /// Height in pixels.
    pub height: usize,
    /// Number of bytes from the start of one line to the start of the next.
    pub pitch: usize,
    /// Size of a pixel in bytes.
    pub pixel: usize,
    /// The channels of red, green and blue, in this order.
    pub channels: [Channel; 3],
}

impl Format {
    /// Returns true if characters can be drawn in a framebuffer of this format: it has two to four bytes a pixel and
    /// room for at least one character.
    pub const fn is_usable(&self) -> bool {
        matches!(self.pixel, 2..=4)
            && self.width >= CELL_WIDTH
            && self.height >= CELL_HEIGHT * self.scale()
            && self.pitch >= self.width * self.pixel
    }

    /// Returns the width and height in screen pixels of one pixel of the font.
    const fn scale(&self) -> usize {
        if self.width >= DENSE { 2 } else { 1 }
    }

    /// Returns a grey pixel of this intensity, where 255 is white.
    fn grey(&self, intensity: u8) -> u32 {
        self.channels.iter().fold(0, |pixel, channel| pixel | channel.of(intensity))
    }
}

/// Memory that pixels are written to.
pub trait Pixels {
    /// Writes the lowest `size` bytes of `pixel` at byte offset `offset`, the lowest byte first.
    fn put(&mut self, offset: usize, pixel: u32, size: usize);
}

/// A framebuffer as a grid of characters.
#[derive(Debug)]
pub struct FramebufferGrid<P> {
    pixels: P,
    format: Format,
    /// The characters that have been drawn, since reading them back from the framebuffer would be slow. 0 stands for a
    /// cell with unknown contents.
    shown: Vec<u8>,
}

impl<P: Pixels> FramebufferGrid<P> {
    /// Returns a grid on these pixels; `None` unless the format is usable.
    pub fn new(pixels: P, format: Format) -> Option<Self> {
        format.is_usable().then(|| {
            let cells = Self::columns_of(&format) * Self::rows_of(&format);
            Self { pixels, format, shown: vec![0; cells] }
        })
    }

    /// Forgets which characters have been drawn, so that each is drawn again. To be called after something else has
    /// drawn on the screen.
    pub fn forget(&mut self) {
        self.shown.fill(0);
    }

    fn columns_of(format: &Format) -> usize {
        (format.width / (CELL_WIDTH * format.scale())).min(MAX_COLUMNS)
    }

    fn rows_of(format: &Format) -> usize {
        (format.height / (CELL_HEIGHT * format.scale())).min(MAX_ROWS)
    }

    fn draw(&mut self, index: usize, character: u8) {
        let columns = self.columns();
        let scale = self.format.scale();
        let (left, top) = (index % columns * CELL_WIDTH * scale, index / columns * CELL_HEIGHT * scale);
        let Some(raster) = get_raster(character.into(), WEIGHT, HEIGHT) else { return };
        for (y, line) in raster.rows().flat_map(|line| repeat_n(line, scale)).enumerate() {
            let start = (top + y) * self.format.pitch + left * self.format.pixel;
            for (x, intensity) in line.iter().flat_map(|intensity| repeat_n(intensity, scale)).enumerate() {
                let pixel = self.format.grey(*intensity);
                self.pixels.put(start + x * self.format.pixel, pixel, self.format.pixel);
            }
        }
    }
}

impl<P: Pixels> Grid for FramebufferGrid<P> {
    fn columns(&self) -> usize {
        Self::columns_of(&self.format)
    }

    fn rows(&self) -> usize {
        Self::rows_of(&self.format)
    }

    fn set(&mut self, index: usize, cell: u16) {
        let character = cell as u8;
        if self.shown.get(index).is_some_and(|shown| *shown != character) {
            self.shown[index] = character;
            self.draw(index, character);
        }
    }

    fn get(&self, index: usize) -> u16 {
        self.shown.get(index).copied().unwrap_or(0).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::screen::Teletype;

    impl Pixels for Vec<u8> {
        fn put(&mut self, offset: usize, pixel: u32, size: usize) {
            self[offset..offset + size].copy_from_slice(&pixel.to_le_bytes()[..size]);
        }
    }

    const RGB: [Channel; 3] = [
        Channel { position: 16, size: 8 },
        Channel { position: 8, size: 8 },
        Channel { position: 0, size: 8 },
    ];
    const RGB565: [Channel; 3] = [
        Channel { position: 11, size: 5 },
        Channel { position: 5, size: 6 },
        Channel { position: 0, size: 5 },
    ];

    fn teletype(pixel: usize, channels: [Channel; 3]) -> Teletype<FramebufferGrid<Vec<u8>>> {
        // Lines have padding, and some pixels right of the last column and below the last row belong to no cell.
        let format =
            Format { width: 10 * CELL_WIDTH + 3, height: 3 * CELL_HEIGHT + 5, pitch: 600, pixel, channels };
        let memory = vec![0; format.pitch * format.height];
        let mut teletype = Teletype::new(FramebufferGrid::new(memory, format).expect("a usable format"));
        teletype.clear();
        teletype
    }

    #[test]
    #[cfg_attr(miri, ignore = "a whole screen takes minutes there")]
    fn grey_sets_all_channels_in_any_format() {
        let format = |channels| Format { width: 80, height: 25, pitch: 320, pixel: 4, channels };
        assert_eq!(format(RGB).grey(0x80), 0x80_8080);
        assert_eq!(format(RGB565).grey(0xff), 0xffff);
        assert_eq!(format(RGB565).grey(0x80), 0x8410);
        let deep = Channel { position: 20, size: 10 };
        assert_eq!(format([deep; 3]).grey(0xff), 0x3fc << 20);
    }

    #[test]
    #[cfg_attr(miri, ignore = "a whole screen takes minutes there")]
    fn characters_on_a_dense_screen_are_twice_as_large() {
        let drawn = |width: usize| {
            let format = Format { width, height: 2 * CELL_HEIGHT, pitch: width * 4, pixel: 4, channels: RGB };
            let mut grid =
                FramebufferGrid::new(vec![0; format.pitch * format.height], format).expect("usable");
            grid.set(0, b'#'.into());
            let lit = |(at, _): (usize, _)| (at % width, at / width);
            let pixels = grid.pixels.chunks(4).enumerate();
            let lit: Vec<_> = pixels.filter(|(_, pixel)| *pixel != [0; 4]).map(lit).collect();
            (grid.columns(), grid.rows(), lit)
        };
        let (columns, rows, small) = drawn(DENSE / 2);
        assert_eq!((columns, rows), (MAX_COLUMNS.min(DENSE / 2 / CELL_WIDTH), 2));
        let (columns, rows, large) = drawn(DENSE);
        assert_eq!((columns, rows), (MAX_COLUMNS.min(DENSE / 2 / CELL_WIDTH), 1));
        let halves: std::collections::BTreeSet<_> = large.iter().map(|(x, y)| (x / 2, y / 2)).collect();
        assert_eq!(large.len(), 4 * small.len());
        assert_eq!(halves, small.into_iter().collect());
    }

    #[test]
    fn unusable_formats_are_refused() {
        let good = Format { width: 80, height: 25, pitch: 320, pixel: 4, channels: RGB };
        assert!(good.is_usable());
        for bad in [
            Format { pixel: 1, ..good },
            Format { width: 1, ..good },
            Format { height: 1, ..good },
            Format { pitch: 300, ..good },
        ] {
            assert!(FramebufferGrid::new(Vec::new(), bad).is_none(), "{bad:?}");
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "a whole screen takes minutes there")]
    fn characters_are_drawn_and_scrolled() {
        for (pixel, channels) in [(4, RGB), (3, RGB), (2, RGB565)] {
            let mut screen = teletype(pixel, channels);
            screen.write(b"top\n\n\nabc");
            let text = |grid: &FramebufferGrid<Vec<u8>>| -> String {
                (0..30).map(|index| char::from(grid.get(index) as u8)).collect()
            };
            assert_eq!(text(screen.grid()), format!("{:30}", "                    abc"));
            let lit = |grid: &FramebufferGrid<Vec<u8>>, row: usize| {
                let lines = grid.pixels.chunks(600).skip(row * CELL_HEIGHT).take(CELL_HEIGHT);
                lines.flatten().filter(|byte| **byte != 0).count()
            };
            assert_eq!(
                [0, 1].map(|row| lit(screen.grid(), row)),
                [0, 0],
                "the first line has been scrolled out"
            );
            assert!(lit(screen.grid(), 2) > 50);
            let before = screen.grid().pixels.clone();
            screen.grid().forget();
            screen.write(b"\r");
            assert_eq!(screen.grid().pixels, before);
        }
    }
}
