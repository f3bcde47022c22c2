//! Writes an image to a medium, and compares what is read back with the image.

use std::io::{ErrorKind, Read, Write};

use anyhow::{Context, Result, bail};

/// The number of bytes that are written, or compared, at once.
const PIECE: usize = 4 << 20;

/// Writes all of `image` to `medium`. Calls `report` after each piece, with the number of bytes written so far.
pub fn write(image: &mut impl Read, medium: &mut impl Write, report: &mut dyn FnMut(u64)) -> Result<()> {
    let mut done = 0;
    let mut piece = Vec::new();
    while next(image, &mut piece).context("cannot read the ISO")? {
        medium.write_all(&piece).and_then(|()| medium.flush()).with_context(|| {
            format!(
                "cannot write after byte {done}; the medium may be broken or was taken out: try another one"
            )
        })?;
        done += piece.len() as u64;
        report(done);
    }
    Ok(())
}

/// Compares all of `image` with the beginning of `medium`. Calls `report` after each piece, with the number of bytes
/// that were the same so far.
pub fn verify(image: &mut impl Read, medium: &mut impl Read, report: &mut dyn FnMut(u64)) -> Result<()> {
    let mut done = 0;
    let (mut piece, mut back) = (Vec::new(), Vec::new());
    while next(image, &mut piece).context("cannot read the ISO")? {
        back.resize(piece.len(), 0);
        match medium.read_exact(&mut back) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                bail!("the medium ends within {} bytes after byte {done}: use another one", piece.len());
            }
            read => read.with_context(|| {
                format!("cannot read back after byte {done}; the medium may be broken: try another one")
            })?,
        }
        if let Some(at) = piece.iter().zip(&back).position(|(written, read)| written != read) {
            bail!(
                "byte {} was written as {:#04x} and is read back as {:#04x}; the medium is broken or smaller than \
                 it says: use another one",
                done + at as u64,
                piece[at],
                back[at]
            );
        }
        done += piece.len() as u64;
        report(done);
    }
    Ok(())
}

/// Reads the next piece. Returns false at the end of the image.
fn next(image: &mut impl Read, piece: &mut Vec<u8>) -> std::io::Result<bool> {
    piece.clear();
    Ok(image.take(PIECE as u64).read_to_end(piece)? > 0)
}

#[cfg(test)]
mod tests {
    use std::io::{self, Cursor, Seek};

    use super::*;

    /// A medium in memory, with at most one fault.
    struct Medium {
        content: Cursor<Vec<u8>>,
        /// The byte that does not keep the value that is written to it.
        damages: Option<usize>,
        /// Writes from this byte on fail.
        breaks_at: u64,
        /// Writes from this byte on go to the beginning, as on a stick that claims to be larger than it is.
        real_size: u64,
    }

    const GOOD: Medium =
        Medium { content: Cursor::new(Vec::new()), damages: None, breaks_at: u64::MAX, real_size: u64::MAX };

    impl Write for Medium {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let at = self.content.position();
            if at >= self.breaks_at {
                return Err(io::Error::other("no answer"));
            }
            if at >= self.real_size {
                self.content.set_position(0);
            }
            let count = self.content.write(&bytes[..bytes.len().min(1 << 20)])?;
            if let Some(byte) = self.damages.and_then(|at| self.content.get_mut().get_mut(at)) {
                *byte = 0xee;
            }
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Returns an image of two whole pieces and a part of one.
    fn image() -> Vec<u8> {
        (0..2 * PIECE + 2048).map(|at| (at / 2048 % 199) as u8).collect()
    }

    /// Writes the image to the medium and compares. Returns what each of the two has reported.
    fn both(mut medium: Medium) -> Result<(Vec<u64>, Vec<u64>)> {
        let image = image();
        let (mut written, mut compared) = (Vec::new(), Vec::new());
        write(&mut image.as_slice(), &mut medium, &mut |done| written.push(done))?;
        medium.content.rewind()?;
        verify(&mut image.as_slice(), &mut medium.content, &mut |done| compared.push(done))?;
        assert!(medium.content.get_ref().starts_with(&image));
        Ok((written, compared))
    }

    fn error(medium: Medium) -> String {
        format!("{:#}", both(medium).unwrap_err())
    }

    #[test]
    fn a_good_medium_holds_the_whole_image() {
        let piece = PIECE as u64;
        let reported = vec![piece, 2 * piece, 2 * piece + 2048];
        assert_eq!(both(GOOD).unwrap(), (reported.clone(), reported));
    }

    #[test]
    fn one_damaged_byte_is_found_and_named() {
        for at in [0, PIECE - 1, PIECE + 5, 2 * PIECE + 2047] {
            let written = image()[at];
            let sentence = format!("byte {at} was written as {written:#04x} and is read back as 0xee; ");
            let error = error(Medium { damages: Some(at), ..GOOD });
            assert!(error.starts_with(&sentence), "{error}");
        }
    }

    #[test]
    fn a_medium_that_is_smaller_than_it_says_is_found() {
        let error = error(Medium { real_size: 2 * PIECE as u64, ..GOOD });
        assert!(error.contains("smaller than it says"), "{error}");
    }

    #[test]
    fn an_error_names_the_byte_that_could_not_be_written_or_read() {
        let error = error(Medium { breaks_at: PIECE as u64, ..GOOD });
        assert!(
            error.starts_with(&format!("cannot write after byte {PIECE}; ")) && error.ends_with("no answer"),
            "{error}"
        );
        let image = image();
        let short = verify(&mut image.as_slice(), &mut &image[..PIECE + 9], &mut |_| {});
        let short = short.unwrap_err().to_string();
        assert_eq!(
            short,
            format!("the medium ends within {PIECE} bytes after byte {PIECE}: use another one")
        );
    }
}
