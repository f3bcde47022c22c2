//! A record that Linux' module `ramoops` finds in memory and shows in `/sys/fs/pstore`: fs/pstore/ram_core.c, `struct
//! persistent_ram_buffer`, and fs/pstore/ram.c, `ramoops_read_kmsg_hdr`.

use super::log::{LOG_BYTES, Log};

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

/// Writes the record with all of `log` by calls of `put`, which get a distance from the start of the memory and the
/// bytes there.
pub fn write(log: &Log, mut put: impl FnMut(u64, &[u8])) {
    let positions = log.positions();
    let most = (RECORD_BYTES - HEADER - TITLE.len()) as u64;
    let mut position = positions.start.max(positions.end.saturating_sub(most));
    let size = TITLE.len() as u64 + (positions.end - position);
    let mut at = 0;
    let mut append = |bytes: &[u8]| {
        put(at, bytes);
        at += bytes.len() as u64;
    };
    append([SIGNATURE, 0, size as u32].map(u32::to_le_bytes).as_flattened());
    append(TITLE);
    let mut piece = [0; 256];
    while position < positions.end {
        let (_, length) = log.read(position, &mut piece);
        append(&piece[..length]);
        position += length as u64;
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
