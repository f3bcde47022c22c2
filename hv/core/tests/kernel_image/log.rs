//! The ring of the log, with a writer that does as the kernel's does.

use std::collections::VecDeque;

use super::memory::Memory;
use super::{Addresses, Era, LOG, in_image};

const NUMBER: u64 = !0 >> 2;
const FINALIZED: u64 = 2 << 62;
const REUSABLE: u64 = 3 << 62;
/// The size of a descriptor, with its state at the start, and its block after it.
const DESCRIPTOR: u64 = 24;
/// The places of the structures.
const RING: u64 = LOG + 0x10;
const TABLE: u64 = LOG + 0x100;
const INFOS: u64 = LOG + 0x400;
const DATA: u64 = LOG + 0x1000;

/// A log.
pub struct Log {
    descriptors: u64,
    data: u64,
    info: u64,
    /// A block may end where the ring ends. In older releases it then lies at the start of the ring.
    may_end: bool,
    /// The number of the newest record.
    pub head: u64,
    position: u64,
    /// The records that are still there: number, position, text, time.
    pub records: VecDeque<(u64, u64, Vec<u8>, u64)>,
}

/// Returns the size of `struct printk_info`.
const fn info_size(era: &Era) -> u64 {
    if era.renumbered { 112 } else { 88 }
}

impl Log {
    /// Writes an empty log. Its descriptors and the bytes of its text are powers of two.
    pub fn new(memory: &mut Memory, era: &Era, count_bits: u32, size_bits: u32) -> Self {
        let (descriptors, data) = (1 << count_bits, 1 << size_bits);
        memory.set(LOG, in_image(RING));
        memory.write(RING, &count_bits.to_le_bytes());
        memory.set(RING + 8, in_image(TABLE));
        memory.set(RING + 16, in_image(INFOS));
        memory.write(RING + 48, &size_bits.to_le_bytes());
        memory.set(RING + 56, in_image(DATA));
        // Numbers and positions begin where they soon overflow: printk_ringbuffer.h, `DESC0_ID` and `BLK0_LPOS`.
        let log = Self {
            descriptors,
            data,
            info: info_size(era),
            may_end: era.addresses == Addresses::Place,
            head: (NUMBER - descriptors) & NUMBER,
            position: 0u64.wrapping_sub(data),
            records: VecDeque::new(),
        };
        memory.set(log.descriptor(log.head), REUSABLE | log.head);
        log.note(memory);
        log
    }

    /// Returns the lines of VMCOREINFO about the log.
    pub fn lines_of_note(era: &Era) -> Vec<String> {
        let fields = [
            ("OFFSET(printk_ringbuffer.desc_ring)", 0),
            ("OFFSET(printk_ringbuffer.text_data_ring)", 48),
            ("OFFSET(prb_desc_ring.count_bits)", 0),
            ("OFFSET(prb_desc_ring.descs)", 8),
            ("OFFSET(prb_desc_ring.infos)", 16),
            ("OFFSET(prb_desc_ring.head_id)", 24),
            ("OFFSET(prb_desc_ring.tail_id)", 32),
            ("SIZE(prb_desc)", DESCRIPTOR),
            ("OFFSET(prb_desc.state_var)", 0),
            ("OFFSET(prb_desc.text_blk_lpos)", 8),
            ("OFFSET(prb_data_blk_lpos.begin)", 0),
            ("OFFSET(prb_data_blk_lpos.next)", 8),
            ("SIZE(printk_info)", info_size(era)),
            ("OFFSET(printk_info.ts_nsec)", 8),
            ("OFFSET(printk_info.text_len)", 16),
            ("OFFSET(prb_data_ring.size_bits)", 0),
            ("OFFSET(prb_data_ring.data)", 8),
        ];
        let fields = fields.iter().map(|(key, value)| format!("{key}={value}"));
        fields.chain([format!("SYMBOL(prb)={:x}", in_image(LOG))]).collect()
    }

    /// Returns the place of the descriptor of the record `number`.
    pub fn descriptor(&self, number: u64) -> u64 {
        TABLE + number % self.descriptors * DESCRIPTOR
    }

    /// Writes the numbers of the newest and the oldest record.
    fn note(&self, memory: &mut Memory) {
        memory.set(RING + 24, self.head);
        memory.set(RING + 32, self.records.front().map_or(self.head, |record| record.0));
    }

    /// Adds a record.
    pub fn push(&mut self, memory: &mut Memory, text: &[u8], time: u64) {
        let size = if text.is_empty() { 0 } else { (8 + text.len() as u64).next_multiple_of(8) };
        assert!(size <= self.data / 2, "the kernel refuses such a record");
        let begin = self.position;
        let plain = begin.wrapping_add(size);
        let last = if self.may_end { plain.wrapping_sub(1) } else { plain };
        let wraps = size > 0 && begin / self.data != last / self.data;
        let next = if wraps { (plain & !(self.data - 1)).wrapping_add(size) } else { plain };
        self.head = (self.head + 1) & NUMBER;
        while self.records.front().is_some_and(|(number, position, ..)| {
            next.wrapping_sub(*position) > self.data
                || self.head.wrapping_sub(*number) & NUMBER >= self.descriptors
        }) {
            let (number, ..) = self.records.pop_front().unwrap();
            memory.set(self.descriptor(number), REUSABLE | number);
        }
        let start = if wraps { 0 } else { begin % self.data };
        if size > 0 {
            memory.set(DATA + begin % self.data, self.head);
            memory.set(DATA + start, self.head);
        }
        memory.write(DATA + start + 8, text);
        let info = INFOS + self.head % self.descriptors * self.info;
        memory.set(info + 8, time);
        memory.write(info + 16, &(text.len() as u16).to_le_bytes());
        let descriptor = self.descriptor(self.head);
        memory.set(descriptor, FINALIZED | self.head);
        // The text of an empty line takes no block.
        let block = if text.is_empty() { [3, 3] } else { [begin, next] };
        memory.set(descriptor + 8, block[0]);
        memory.set(descriptor + 16, block[1]);
        self.position = next;
        self.records.push_back((self.head, begin, text.to_vec(), time));
        self.note(memory);
    }
}
