//! A record that Linux' module `ramoops` finds in memory and shows in `/sys/fs/pstore`: fs/pstore/ram_core.c, `struct
//! persistent_ram_buffer`, and fs/pstore/ram.c, `ramoops_read_kmsg_hdr`.

use core::fmt::{self, Write};

use super::log::{LOG_BYTES, Log};
use crate::loader::text::Text;

/// Size of the memory for the record. `ramoops` takes powers of two.
pub const RECORD_BYTES: usize = 32 * 1024;
/// PERSISTENT_RAM_SIG.
const SIGNATURE: u32 = u32::from_le_bytes(*b"DBGC");
/// The line before the text of a dump: the time of the crash, which is not known, and a D for text that is not
/// compressed.
const TITLE: &[u8] = b"====0.000000-D\n";
/// Size of what is before the title: the signature, the start of the text in the memory, and its size, as `u32` each.
const HEADER: usize = 12;
const _: () = assert!(RECORD_BYTES.is_power_of_two() && RECORD_BYTES >= LOG_BYTES);

/// Writes the record with the end of `log` that fits, by calls of `put`, which get a distance from the start of the
/// memory and the bytes there. An administrator shows the text on a terminal, so control characters are escaped, as in
/// [`super::summary`] and by `vidarctl log --last`.
pub fn write(log: &Log, put: impl FnMut(u64, &[u8])) {
    let positions = log.positions();
    let mut position = positions.start;
    let mut size = TITLE.len();
    while let Some((character, next)) = character(log, position) {
        size += character.escaped_length();
        position = next;
    }
    position = positions.start;
    while size > RECORD_BYTES - HEADER
        && let Some((character, next)) = character(log, position)
    {
        size -= character.escaped_length();
        position = next;
    }
    let mut record = Record { at: 0, put };
    record.append([SIGNATURE, 0, size as u32].map(u32::to_le_bytes).as_flattened());
    record.append(TITLE);
    while let Some((character, next)) = character(log, position) {
        character.write(&mut record);
        position = next;
    }
}

/// A character of a log, or a byte that belongs to none.
struct Character {
    bytes: [u8; 4],
    length: usize,
}

/// Returns the character at `position` in `log`, and the position after it. Returns `None` at the end.
fn character(log: &Log, position: u64) -> Option<(Character, u64)> {
    let mut bytes = [0; 4];
    let (start, length) = log.read(position, &mut bytes);
    let first = bytes[..length].utf8_chunks().next()?.valid().chars().next();
    let length = first.map_or(1, char::len_utf8);
    Some((Character { bytes, length }, start + length as u64))
}

impl Character {
    /// Writes the character as it is to be shown.
    fn write(&self, out: &mut dyn Write) {
        let bytes = &self.bytes[..self.length];
        // Writing cannot fail.
        let _ = match bytes {
            b"\n" => out.write_str("\n"),
            b"\t" => out.write_str("\t"),
            _ => write!(out, "{}", Text(bytes)),
        };
    }

    /// Returns the number of bytes that [`Character::write`] writes.
    fn escaped_length(&self) -> usize {
        let mut length = Length(0);
        self.write(&mut length);
        length.0
    }
}

/// Counts the bytes that are written to it.
struct Length(usize);

impl Write for Length {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0 += text.len();
        Ok(())
    }
}

/// The memory of the record.
struct Record<P> {
    /// The distance of what is written next.
    at: u64,
    put: P,
}

impl<P: FnMut(u64, &[u8])> Record<P> {
    fn append(&mut self, bytes: &[u8]) {
        (self.put)(self.at, bytes);
        self.at += bytes.len() as u64;
    }
}

impl<P: FnMut(u64, &[u8])> Write for Record<P> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.append(text.as_bytes());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(text: &[u8]) -> Vec<u8> {
        let mut log = Box::new(Log::filled(0));
        log.begin(1);
        log.push(text);
        let mut record = Vec::new();
        write(&log, |at, bytes| {
            assert_eq!(at, record.len() as u64);
            record.extend_from_slice(bytes);
        });
        record
    }

    #[test]
    fn a_record_has_the_form_that_linux_reads() {
        assert_eq!(record(b"text\n"), b"DBGC\0\0\0\0\x14\0\0\0====0.000000-D\ntext\n");
    }

    #[test]
    fn a_record_does_not_control_the_terminal() {
        let title = b"====0.000000-D\n";
        let said = |text: &[u8]| record(text)[HEADER + title.len()..].to_vec();
        let text = "\x1b[2Jcrash\t\r\nf\u{fc}r \u{1f980}\u{9b}31m";
        let escaped = "\\u{1b}[2Jcrash\t\\r\nf\u{fc}r \u{1f980}\\u{9b}31m";
        assert_eq!(String::from_utf8(said(text.as_bytes())).unwrap(), escaped);
        assert_eq!(said(b"a\xff\xc3\n\xe2\x82"), b"a\\xff\\xc3\n\\xe2\\x82");
    }

    #[test]
    #[cfg_attr(miri, ignore = "a full log takes minutes there")]
    fn a_record_is_no_larger_than_its_memory_if_all_of_it_is_escaped() {
        let record = record(&[b"start".as_slice(), &[0x1b; 20_000], b"end"].concat());
        assert!((RECORD_BYTES - 6..=RECORD_BYTES).contains(&record.len()));
        assert!(record[HEADER + TITLE.len()..].starts_with(b"\\u{1b}") && record.ends_with(b"\\u{1b}end"));
        let size = u32::from_le_bytes(record[8..12].try_into().unwrap());
        assert_eq!(size as usize, record.len() - HEADER);
    }

    #[test]
    #[cfg_attr(miri, ignore = "a full log takes minutes there")]
    fn a_record_has_the_end_of_a_long_log() {
        let text: Vec<u8> = (0..100_000_u32).map(|at| b'a' + (at % 26) as u8).collect();
        let record = record(&text);
        assert!(record.len() <= RECORD_BYTES);
        let size = u32::from_le_bytes(record[8..12].try_into().unwrap());
        assert_eq!(size as usize, record.len() - HEADER);
        let said = &record[HEADER + TITLE.len()..];
        assert!(said.len() > 32_000 && text.ends_with(said));
    }
}
