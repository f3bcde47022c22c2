//! A picture of a machine's screen, which is read as a pixmap from the emulator and written as a PNG.

use std::fs::File;
use std::io::BufWriter;
use std::path::Path;

use anyhow::{Context, Result, ensure};

/// The bytes of a pixel: red, green and blue.
const PIXEL: usize = 3;

/// A picture of a screen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    width: usize,
    height: usize,
    /// The pixels, line by line from the top.
    pixels: Vec<u8>,
}

impl Picture {
    /// Reads a binary portable pixmap. It consists of the letters P6, the width, the height and the largest value, each
    /// followed by a space or the end of a line, and then the pixels.
    pub fn from_ppm(bytes: &[u8]) -> Result<Self> {
        let mut rest = bytes;
        let mut word = || -> Option<&str> {
            let end = rest.iter().position(u8::is_ascii_whitespace)?;
            let word = str::from_utf8(&rest[..end]).ok();
            rest = &rest[end + 1..];
            word
        };
        ensure!(word() == Some("P6"), "the picture is not a binary portable pixmap");
        let mut number = || word()?.parse::<usize>().ok();
        let size = number().zip(number()).filter(|_| number() == Some(255));
        let (width, height) = size.context("the header of the picture cannot be read")?;
        ensure!(
            rest.len() == width * height * PIXEL,
            "a picture of {width} x {height} cannot have {} bytes of pixels",
            rest.len()
        );
        Ok(Self { width, height, pixels: rest.to_vec() })
    }

    /// Returns the number of pixels in a line.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Returns the number of lines.
    pub fn height(&self) -> usize {
        self.height
    }

    /// Returns the brightness of a pixel.
    pub fn brightness(&self, x: usize, y: usize) -> u8 {
        let at = (y * self.width + x) * PIXEL;
        let sum: u32 = self.pixels[at..at + PIXEL].iter().map(|colour| u32::from(*colour)).sum();
        (sum / PIXEL as u32) as u8
    }

    /// Writes the picture as a PNG.
    pub fn save(&self, path: &Path) -> Result<()> {
        let write = || -> Result<()> {
            let file = BufWriter::new(File::create(path)?);
            let mut encoder = png::Encoder::new(file, self.width.try_into()?, self.height.try_into()?);
            encoder.set_color(png::ColorType::Rgb);
            encoder.set_compression(png::Compression::High);
            let mut writer = encoder.write_header()?;
            writer.write_image_data(&self.pixels)?;
            Ok(writer.finish()?)
        };
        write().with_context(|| format!("cannot write {}", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pixmap_is_read() {
        // A pixel may have the value of a space.
        let picture = Picture::from_ppm(b"P6\n2 1\n255\n\x20\x20\x20\x00\xff\x60").unwrap();
        assert_eq!((picture.width(), picture.height()), (2, 1));
        assert_eq!([0, 1].map(|x| picture.brightness(x, 0)), [0x20, 0x75]);
        for bad in [
            "",
            "P5\n1 1\n255\nabc",
            "P6\n1\n",
            "P6\n1 x\n255\nabc",
            "P6\n1 1\n65535\nabc",
            "P6\n1 1\n255\nab",
        ] {
            assert!(Picture::from_ppm(bad.as_bytes()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_saved_picture_reads_back_the_same() {
        let picture = Picture { width: 3, height: 2, pixels: (0..18).map(|byte| byte * 14).collect() };
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("picture.png");
        picture.save(&file).unwrap();
        let decoder = png::Decoder::new(std::io::BufReader::new(File::open(&file).unwrap()));
        let mut reader = decoder.read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        let frame = reader.next_frame(&mut pixels).unwrap();
        assert_eq!((frame.width, frame.height, frame.color_type), (3, 2, png::ColorType::Rgb));
        assert_eq!(pixels, picture.pixels);
        assert!(picture.save(&dir.path().join("no/folder.png")).is_err());
    }
}
