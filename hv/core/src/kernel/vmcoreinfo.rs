//! VMCOREINFO: an ELF note in which the kernel says where its tables are, for the tools that read its memory after a
//! crash.
//!
//! The note lies at the start of a page that the kernel has allocated, so its place differs from boot to boot. It is
//! there after `subsys_initcall`. Linux 6.1, kernel/crash_core.c, `crash_save_vmcoreinfo_init`; since Linux 6.9 in
//! kernel/vmcore_info.c.

use crate::mem::addr::{Gpa, PAGE_SIZE};
use crate::mem::ranges::RangeSet;
use crate::mem::walk::ReadGuest;

/// The length of the note's name with its zero: the first field of the note's header.
const NAME_LENGTH: u64 = 11;
/// The type of the note, which is 0, and the first four bytes of its name.
const TYPE_AND_NAME: u64 = u64::from_le_bytes(*b"\0\0\0\0VMCO");
/// The rest of the name, and the byte that fills it up to a multiple of four.
const REST_OF_NAME: u64 = u64::from_le_bytes(*b"REINFO\0\0");
/// The length of the header with the name.
const HEADER: u64 = 24;
/// The most bytes of text: Linux allocates one page for them.
const MAX_TEXT: u64 = PAGE_SIZE;
/// The most bytes of a line that are read. Linux writes lines of up to 80 bytes.
const MAX_LINE: usize = 96;
/// The most pages that are searched: 64 GiB.
const MAX_PAGES: u64 = 16 << 20;
/// The most notes that are looked at. The memory of kernels that ran before this one may hold theirs.
const MAX_NOTES: usize = 32;

/// The text of a note.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Note {
    /// The physical address of the first byte, a multiple of eight.
    text: Gpa,
    /// The number of bytes.
    length: u64,
}

/// Calls `then` for each note in `ram`, from the lowest address on, until it returns something, and returns that.
///
/// This reads one word of each page, and Linux has no place where it is likely to be found earlier.
pub fn search<T>(
    memory: &dyn ReadGuest,
    ram: &RangeSet,
    mut then: impl FnMut(Note) -> Option<T>,
) -> Option<T> {
    let pages = ram.iter().flat_map(|range| {
        let first = range.start.0.div_ceil(PAGE_SIZE);
        first..(range.end.0 / PAGE_SIZE).max(first)
    });
    let at = pages.take(MAX_PAGES as usize).map(|page| Gpa(page * PAGE_SIZE));
    at.filter_map(|page| Note::at(memory, page)).take(MAX_NOTES).find_map(&mut then)
}

impl Note {
    /// Returns the note at the start of `page`, if there is one.
    fn at(memory: &dyn ReadGuest, page: Gpa) -> Option<Self> {
        if memory.word(page + 8)? != TYPE_AND_NAME || memory.word(page + 16)? != REST_OF_NAME {
            return None;
        }
        let lengths = memory.word(page)?;
        let length = lengths >> 32;
        let fits = lengths & 0xffff_ffff == NAME_LENGTH && length <= MAX_TEXT;
        fits.then_some(Self { text: page + HEADER, length })
    }

    /// Calls `line` with each line's key and value. Lines without an equals sign and what is too long are left out.
    pub fn lines(&self, memory: &dyn ReadGuest, line: &mut dyn FnMut(&[u8], &[u8])) {
        let mut buffer = [0; MAX_LINE];
        let mut length = 0;
        for offset in 0..self.length {
            let address = self.text.0 + offset;
            let Some(word) = memory.word(Gpa(address & !7)) else { return };
            match (word >> (address % 8 * 8)) as u8 {
                b'\n' => {
                    let mut parts = buffer.get(..length).unwrap_or_default().splitn(2, |byte| *byte == b'=');
                    if let (Some(key), Some(value)) = (parts.next(), parts.next()) {
                        line(key, value);
                    }
                    length = 0;
                }
                byte => {
                    if let Some(slot) = buffer.get_mut(length) {
                        *slot = byte;
                    }
                    length += 1;
                }
            }
        }
    }
}

/// Returns the number that `value` has in hexadecimal digits.
pub fn hexadecimal(value: &[u8]) -> Option<u64> {
    u64::from_str_radix(core::str::from_utf8(value).ok()?, 16).ok()
}

/// Returns the number that `value` has in decimal digits. A negative one is returned as its two's complement.
pub fn decimal(value: &[u8]) -> Option<u64> {
    let text = core::str::from_utf8(value).ok()?;
    text.parse().or_else(|_| text.parse::<i64>().map(i64::cast_unsigned)).ok()
}

#[cfg(test)]
mod tests {
    use alloc::collections::BTreeMap;
    use alloc::vec::Vec;

    use super::*;
    use crate::mem::addr::Hpa;

    /// Pages of memory by their addresses.
    struct Memory(BTreeMap<u64, Vec<u8>>);

    impl ReadGuest for Memory {
        fn word(&self, address: Gpa) -> Option<u64> {
            assert_eq!(address.0 % 8, 0);
            let page = self.0.get(&(address.0 & !0xfff))?;
            Some(u64::from_le_bytes(*page.get(address.0 as usize & 0xfff..)?.first_chunk()?))
        }

        fn page(&self, _: Gpa) -> Option<Hpa> {
            None
        }
    }

    fn note(name: &[u8; 12], kind: u32, claimed: u32, text: &[u8]) -> Vec<u8> {
        let header = [NAME_LENGTH as u32, claimed, kind].map(u32::to_le_bytes).concat();
        let mut page = [&header[..], name, text].concat();
        page.resize(4096, 0);
        page
    }

    const NAME: &[u8; 12] = b"VMCOREINFO\0\0";
    const TEXT: &[u8] = b"OSRELEASE=6.1.0-1\nKERNELOFFSET=1e000000\nNUMBER(phys_base)=-4096\n";

    fn lines(memory: &Memory, note: Note) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut all = Vec::new();
        note.lines(memory, &mut |key, value| all.push((key.to_vec(), value.to_vec())));
        all
    }

    #[test]
    fn a_note_is_found_at_the_start_of_a_page_of_ram() {
        let length = TEXT.len() as u32;
        let shifted = [&[0; 8][..], &note(NAME, 0, length, TEXT)[..4088]].concat();
        let memory = Memory(BTreeMap::from([
            (0x1000, note(NAME, 0, length, TEXT)),
            (0x2000, shifted),
            (0x3000, note(b"VMCOREINFO0\0", 0, length, TEXT)),
            (0x4000, note(NAME, 1, length, TEXT)),
            (0x5000, note(NAME, 0, 4097, TEXT)),
            (0x7000, note(NAME, 0, length, TEXT)),
            (0x9000, note(NAME, 0, length, b"A=1=2\nno sign\nB=\n")),
        ]));
        // The first and the last page are not whole in RAM, and one page cannot be read.
        let ram = RangeSet::from([Hpa(0x1800)..Hpa(0x8000), Hpa(0x8800)..Hpa(0x9fff)]);
        let mut found = Vec::new();
        let none: Option<()> = search(&memory, &ram, |note| {
            found.push(note.text.0);
            None
        });
        assert_eq!((none, &found[..]), (None, &[0x7018][..]));

        let ram = RangeSet::from([Hpa(0x7000)..Hpa(0xa000)]);
        let all = search(&memory, &ram, |note| Some(lines(&memory, note))).unwrap();
        let key = |at: usize| core::str::from_utf8(&all[at].0).unwrap();
        assert_eq!((all.len(), key(0), key(2)), (3, "OSRELEASE", "NUMBER(phys_base)"));
        assert_eq!(all[1].1, b"1e000000");

        let ram = RangeSet::from([Hpa(0x9000)..Hpa(0xa000)]);
        let all = search(&memory, &ram, |note| Some(lines(&memory, note))).unwrap();
        assert_eq!(all, [(b"A".to_vec(), b"1=2".to_vec()), (b"B".to_vec(), vec![])]);
    }

    #[test]
    fn a_line_that_is_too_long_is_left_out() {
        let long = [&b"KEY="[..], &[b'x'; MAX_LINE], b"\nB=2\n"].concat();
        let memory = Memory(BTreeMap::from([(0, note(NAME, 0, long.len() as u32, &long))]));
        let note = Note::at(&memory, Gpa(0)).unwrap();
        assert_eq!(lines(&memory, note), [(b"B".to_vec(), b"2".to_vec())]);
    }

    #[test]
    fn the_text_ends_where_memory_cannot_be_read() {
        let memory = Memory(BTreeMap::from([(0, note(NAME, 0, 4096, TEXT))]));
        assert_eq!(lines(&memory, Note::at(&memory, Gpa(0)).unwrap()).len(), 3);
    }

    #[test]
    fn only_some_notes_are_looked_at() {
        let page = note(NAME, 0, 0, b"");
        let memory = Memory((0..100).map(|at| (at * PAGE_SIZE, page.clone())).collect());
        let mut count = 0;
        let ram = RangeSet::from([Hpa(0)..Hpa(100 * PAGE_SIZE)]);
        let none: Option<()> = search(&memory, &ram, |_| {
            count += 1;
            None
        });
        assert_eq!((none, count), (None, MAX_NOTES));
    }

    #[test]
    fn numbers_are_read_in_both_notations() {
        assert_eq!(hexadecimal(b"ffffffff9f000000"), Some(0xffff_ffff_9f00_0000));
        assert_eq!((hexadecimal(b""), hexadecimal(b"g"), hexadecimal(&[b'f'; 17])), (None, None, None));
        assert_eq!(decimal(b"-444596224"), Some(0u64.wrapping_sub(444_596_224)));
        assert_eq!((decimal(b"48"), decimal(b"0x30"), decimal(b"\xff")), (Some(48), None, None));
    }
}
