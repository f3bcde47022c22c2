//! The last lines of the kernel's log, out of the ring in which printk keeps it.
//!
//! A ring of descriptors says for each record where its text is in a ring of bytes. Descriptors and blocks of text are
//! reused. Both carry the number of the record, and a descriptor also says whether its record is complete, so a torn or
//! a reused record is recognised. Linux 6.1, kernel/printk/printk_ringbuffer.c; the structures' layouts are in
//! VMCOREINFO since Linux 5.10 (kernel/printk/printk.c, `log_buf_vmcoreinfo_setup`).

use super::view::View;
use super::vmcoreinfo::{decimal, hexadecimal};

/// The most bytes of a line, with the time before it. What is longer is cut.
pub const MAX_LINE: usize = 256;
/// The most lines that are returned.
pub const MAX_LINES: usize = 4096;
/// The most damaged or empty records that are passed over.
const MAX_SKIPPED: u64 = 1024;
/// The most bits of the number of a descriptor, and of a position in the text.
const MAX_BITS: u32 = 32;

/// The state of a descriptor is in the two highest bits of its word, the number of its record in the others. A record
/// is complete in two of the states: committed, which its writer may still continue, and finalized.
const STATE_SHIFT: u32 = 62;
const NUMBER: u64 = (1 << STATE_SHIFT) - 1;
const COMMITTED: u64 = 1;
const FINALIZED: u64 = 2;

/// The position at which the text of an empty line is said to begin and to end. Linux 6.1,
/// kernel/printk/printk_ringbuffer.h, `NO_LPOS`.
const EMPTY: u64 = 3;

/// The fields of the structures, in the order of [`KEYS`].
#[derive(Debug, Clone, Copy)]
enum Field {
    Descriptors,
    Text,
    CountBits,
    Table,
    Infos,
    Head,
    Tail,
    DescriptorSize,
    State,
    Block,
    Begin,
    Next,
    InfoSize,
    Time,
    Length,
    SizeBits,
    Data,
}

/// The lines of VMCOREINFO that have these fields.
const KEYS: [&[u8]; 17] = [
    b"OFFSET(printk_ringbuffer.desc_ring)",
    b"OFFSET(printk_ringbuffer.text_data_ring)",
    b"OFFSET(prb_desc_ring.count_bits)",
    b"OFFSET(prb_desc_ring.descs)",
    b"OFFSET(prb_desc_ring.infos)",
    b"OFFSET(prb_desc_ring.head_id)",
    b"OFFSET(prb_desc_ring.tail_id)",
    b"SIZE(prb_desc)",
    b"OFFSET(prb_desc.state_var)",
    b"OFFSET(prb_desc.text_blk_lpos)",
    b"OFFSET(prb_data_blk_lpos.begin)",
    b"OFFSET(prb_data_blk_lpos.next)",
    b"SIZE(printk_info)",
    b"OFFSET(printk_info.ts_nsec)",
    b"OFFSET(printk_info.text_len)",
    b"OFFSET(prb_data_ring.size_bits)",
    b"OFFSET(prb_data_ring.data)",
];

/// Where the ring is, and how its structures are laid out.
#[derive(Debug, Clone, Copy, Default)]
pub struct Layout {
    /// The address of the variable `prb`, which points to the ring.
    ring: Option<u64>,
    fields: [u16; KEYS.len()],
    /// A bit for each field that is known.
    known: u32,
}

impl Layout {
    /// Takes a line of VMCOREINFO, if it is about the log.
    pub fn take(&mut self, key: &[u8], value: &[u8]) {
        if key == b"SYMBOL(prb)" {
            self.ring = hexadecimal(value);
        }
        let number = decimal(value).and_then(|number| u16::try_from(number).ok());
        let slot = KEYS.iter().position(|known| *known == key);
        if let Some((slot, number)) = slot.zip(number) {
            self.fields[slot] = number;
            self.known |= 1 << slot;
        }
    }

    fn get(&self, field: Field) -> u64 {
        self.fields[field as usize].into()
    }

    /// Calls `line` with each of the last `lines` lines, the oldest first, each with the time before it, as the kernel
    /// prints it. The bytes are those of the guest, so they may be anything but a line's end.
    pub fn lines(&self, view: View<'_>, lines: usize, line: &mut dyn FnMut(&[u8])) {
        let lines = lines.min(MAX_LINES);
        let Some(ring) = self.open(view).filter(|_| lines > 0) else { return };
        let (mut from, mut count, mut skipped) = (ring.head, 0, 0);
        // The numbers of records run on from the tail to the head, in as many bits as a word has beside the state.
        let all = (ring.head.wrapping_sub(ring.tail) & NUMBER).min(ring.descriptor_mask);
        for back in 0..=all {
            if count >= lines || skipped > MAX_SKIPPED {
                break;
            }
            from = ring.head.wrapping_sub(back) & NUMBER;
            match ring.record(view, from) {
                Some(record) => count += record.lines(view),
                None => skipped += 1,
            }
        }
        // The guest may write meanwhile, but there are never more lines than were asked for.
        let (mut surplus, mut left) = (count.saturating_sub(lines), lines);
        let mut last_lines = |text: &[u8]| {
            if surplus > 0 {
                surplus -= 1;
            } else if left > 0 {
                left -= 1;
                line(text);
            }
        };
        for on in 0..=ring.head.wrapping_sub(from) & NUMBER {
            if let Some(record) = ring.record(view, from.wrapping_add(on) & NUMBER) {
                record.print(view, &mut last_lines);
            }
        }
    }

    fn open(&self, view: View<'_>) -> Option<Ring<'_>> {
        if self.known != (1 << KEYS.len()) - 1 {
            return None;
        }
        let ring = view.u64(self.ring?)?;
        let at = |base: u64, field| base.checked_add(self.get(field));
        let (descriptors, text) = (at(ring, Field::Descriptors)?, at(ring, Field::Text)?);
        let mask = |at: Option<u64>| {
            let bits = view.u32(at?)?;
            (bits <= MAX_BITS).then(|| (1u64 << bits) - 1)
        };
        let pointer = |at: Option<u64>| view.u64(at?);
        Some(Ring {
            layout: self,
            table: pointer(at(descriptors, Field::Table))?,
            infos: pointer(at(descriptors, Field::Infos))?,
            descriptor_mask: mask(at(descriptors, Field::CountBits))?,
            head: pointer(at(descriptors, Field::Head))? & NUMBER,
            tail: pointer(at(descriptors, Field::Tail))? & NUMBER,
            data: pointer(at(text, Field::Data))?,
            data_mask: mask(at(text, Field::SizeBits))?,
        })
    }
}

/// The ring.
struct Ring<'a> {
    layout: &'a Layout,
    table: u64,
    infos: u64,
    descriptor_mask: u64,
    /// The number of the newest record.
    head: u64,
    /// The number of the oldest record.
    tail: u64,
    data: u64,
    data_mask: u64,
}

/// A record with its text.
#[derive(Debug, Clone, Copy)]
struct Record {
    text: u64,
    length: u16,
    nanoseconds: u64,
}

impl Ring<'_> {
    /// Returns the record `number`; `None` if it is not complete, has no text any more, or has been replaced by
    /// another.
    fn record(&self, view: View<'_>, number: u64) -> Option<Record> {
        let field = |base: u64, field| base.checked_add(self.layout.get(field));
        let index = number & self.descriptor_mask;
        let element = |array: u64, size| array.checked_add(index.checked_mul(self.layout.get(size))?);
        let descriptor = element(self.table, Field::DescriptorSize)?;
        let info = element(self.infos, Field::InfoSize)?;
        let state = view.u64(field(descriptor, Field::State)?)?;
        if state & NUMBER != number || ![COMMITTED, FINALIZED].contains(&(state >> STATE_SHIFT)) {
            return None;
        }
        let block = field(descriptor, Field::Block)?;
        let begin = view.u64(field(block, Field::Begin)?)?;
        let next = view.u64(field(block, Field::Next)?)?;
        let mut record = Record { text: 0, length: 0, nanoseconds: view.u64(field(info, Field::Time)?)? };
        if [begin, next] != [EMPTY; 2] {
            let (start, bytes) = self.block(begin, next)?;
            let length = view.u16(field(info, Field::Length)?)?;
            record.text = start.checked_add(8)?;
            record.length = length.min(u16::try_from(bytes.checked_sub(8)?).unwrap_or(u16::MAX));
            // The block has the number of its record.
            if view.u64(start)? != number {
                return None;
            }
        }
        // The descriptor is still that of the same record.
        (view.u64(field(descriptor, Field::State)?)? & NUMBER == number).then_some(record)
    }

    /// Returns the address and the size of the block from position `begin` to `next`. A block that does not fit before
    /// the end of the ring is at its start. Linux 6.1, kernel/printk/printk_ringbuffer.c, `get_data`.
    fn block(&self, begin: u64, next: u64) -> Option<(u64, u64)> {
        // Odd positions stand for a record whose text is lost.
        if (begin | next) & 1 != 0 {
            return None;
        }
        let size = self.data_mask + 1;
        let (start, end) = (begin & self.data_mask, next.wrapping_sub(1) & self.data_mask);
        let bytes = next.wrapping_sub(begin);
        if bytes == 0 || bytes > 2 * size {
            return None;
        }
        if start <= end && bytes <= size {
            Some((self.data.checked_add(start)?, bytes))
        } else {
            Some((self.data, end + 1))
        }
    }
}

impl Record {
    /// Returns the bytes of the text.
    fn bytes(self, view: View<'_>) -> impl Iterator<Item = u8> {
        let mut stream = view.stream(self.text);
        (0..self.length).map_while(move |_| stream.byte())
    }

    /// Returns the number of lines.
    fn lines(self, view: View<'_>) -> usize {
        1 + self.bytes(view).filter(|byte| *byte == b'\n').count()
    }

    /// Calls `line` with each line.
    fn print(self, view: View<'_>, line: &mut dyn FnMut(&[u8])) {
        let mut text = Line::new(self.nanoseconds);
        for byte in self.bytes(view).chain([b'\n']) {
            if byte != b'\n' {
                text.push(byte);
                continue;
            }
            line(text.bytes());
            text = Line::new(self.nanoseconds);
        }
    }
}

/// A line with the time before it.
struct Line {
    bytes: [u8; MAX_LINE],
    length: usize,
}

impl Line {
    /// Returns a line with no more than the time, like `[    4.239004] `.
    fn new(nanoseconds: u64) -> Self {
        let mut line = Self { bytes: [0; MAX_LINE], length: 0 };
        let (seconds, microseconds) = (nanoseconds / 1_000_000_000, nanoseconds % 1_000_000_000 / 1000);
        // The widths are those of the kernel's own `print_time`, so this always fits.
        let _ = core::fmt::write(&mut line, format_args!("[{seconds:5}.{microseconds:06}] "));
        line
    }

    fn push(&mut self, byte: u8) {
        if let Some(slot) = self.bytes.get_mut(self.length) {
            *slot = byte;
            self.length += 1;
        }
    }

    fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

impl core::fmt::Write for Line {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        text.bytes().for_each(|byte| self.push(byte));
        Ok(())
    }
}
