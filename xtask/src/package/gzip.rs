//! Compression of the files that Debian wants compressed.

use std::io::Write;

use anyhow::Result;
use flate2::{Compression, GzBuilder};

/// Compresses as `gzip -9n` does: without a name and a date, so that the same text always gives the same bytes.
pub fn gzip(text: &[u8]) -> Result<Vec<u8>> {
    let mut encoder = GzBuilder::new().mtime(0).write(Vec::new(), Compression::best());
    encoder.write_all(text)?;
    Ok(encoder.finish()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_no_name_and_no_date() {
        let bytes = gzip(b"text").unwrap();
        assert_eq!(bytes[..8], [0x1f, 0x8b, 8, 0, 0, 0, 0, 0]);
    }
}
