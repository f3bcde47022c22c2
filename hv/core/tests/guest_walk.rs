//! The walk of the guest's page tables, compared with tables that a separate builder makes from a list of pages.

use std::cell::RefCell;
use std::collections::BTreeMap;

use proptest::prelude::*;
use vidar_core::mem::addr::Gpa;
use vidar_core::mem::walk::{Bytes, Paging, translate};

/// Memory in words; what was never written cannot be read.
#[derive(Default)]
struct Memory {
    words: BTreeMap<u64, u64>,
    next: u64,
}

impl Memory {
    fn read(&self, address: Gpa) -> Option<u64> {
        assert_eq!(address.0 % 8, 0, "only whole words");
        self.words.get(&address.0).copied()
    }

    /// Returns a table without present entries; their other bits are arbitrary.
    fn table(&mut self) -> u64 {
        self.next += 0x1000;
        let absent = |address: u64| scramble(address) & !(1 << 32 | 1);
        self.words.extend((0..512).map(|index| self.next + index * 8).map(|at| (at, absent(at))));
        self.next
    }

    fn entry(&mut self, address: u64, size: u64) -> u64 {
        self.words[&(address & !7)] >> (address % 8 * 8) & if size == 4 { 0xffff_ffff } else { u64::MAX }
    }

    fn set(&mut self, address: u64, size: u64, entry: u64) {
        let shift = address % 8 * 8;
        let mask = if size == 4 { 0xffff_ffff << shift } else { u64::MAX };
        let word = self.words.get_mut(&(address & !7)).unwrap();
        *word = *word & !mask | entry << shift & mask;
    }
}

/// Returns bits that depend only on `seed`.
fn scramble(seed: u64) -> u64 {
    (seed ^ seed >> 29).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// Bits of an entry that say nothing about where it leads: rights, accessed, dirty and ignored ones, no-execute.
fn noise(seed: u64, size: u64) -> u64 {
    let high = if size == 8 { 0xfff0_0000_0000_0000 } else { 0 };
    scramble(seed) & (0xe7e | high)
}

/// A way of paging as the manuals draw it: for each level the lowest bit and the number of bits of its index, and
/// whether it can map a page.
struct Shape {
    paging: Paging,
    entry_size: u64,
    levels: &'static [(u32, u32, bool)],
}

const SHAPES: &[Shape] = &[
    Shape {
        paging: Paging::Bits32 { large_pages: true },
        entry_size: 4,
        levels: &[(22, 10, true), (12, 10, true)],
    },
    Shape {
        paging: Paging::Bits32 { large_pages: false },
        entry_size: 4,
        levels: &[(22, 10, false), (12, 10, true)],
    },
    Shape { paging: Paging::Pae, entry_size: 8, levels: &[(30, 2, false), (21, 9, true), (12, 9, true)] },
    Shape {
        paging: Paging::Long { levels: 4 },
        entry_size: 8,
        levels: &[(39, 9, false), (30, 9, true), (21, 9, true), (12, 9, true)],
    },
    Shape {
        paging: Paging::Long { levels: 5 },
        entry_size: 8,
        levels: &[(48, 9, false), (39, 9, false), (30, 9, true), (21, 9, true), (12, 9, true)],
    },
];

/// A page to build: the linear address that it contains, the level that maps it, or a lower one if that level cannot
/// map pages, and its physical address.
type PageRequest = (u64, usize, u64);

/// Builds tables for those of the `requests` that do not collide. Returns the root, and base, size in bits and physical
/// address of each page.
fn build(shape: &Shape, memory: &mut Memory, requests: &[PageRequest]) -> (u64, Vec<(u64, u32, u64)>) {
    let root = memory.table();
    let mut pages = Vec::new();
    let bits: u32 = shape.levels[0].0 + shape.levels[0].1;
    'requests: for &(linear, depth, physical) in requests {
        let linear = linear & ((1u128 << bits) - 1) as u64;
        let mut table = root;
        for (level, &(shift, width, maps)) in shape.levels.iter().enumerate() {
            let index = linear >> shift & ((1 << width) - 1);
            let at = table + index * shape.entry_size;
            let entry = memory.entry(at, shape.entry_size);
            let last = level + 1 == shape.levels.len();
            let present = entry & 1 != 0;
            if present && (last || maps && entry & 0x80 != 0) {
                continue 'requests;
            }
            if !present && maps && (last || level >= depth) {
                let limit = if shape.entry_size == 8 {
                    0x000f_ffff_ffff_f000
                } else if last {
                    0xffff_f000
                } else {
                    0xff_ffc0_0000
                };
                let page = physical & limit & !((1 << shift) - 1);
                let address = if shape.entry_size == 4 && !last {
                    page & 0xffff_ffff | (page >> 32) << 13
                } else {
                    page
                };
                // The bit of a large page is one of the PAT in the last level.
                let large = if last { scramble(physical) >> 7 & 0x80 } else { 0x80 };
                let noise = noise(physical, shape.entry_size);
                memory.set(at, shape.entry_size, address | 1 | noise | large);
                pages.push((linear & !((1 << shift) - 1), shift, page));
                continue 'requests;
            }
            if present {
                table = entry & if shape.entry_size == 4 { 0xffff_f000 } else { 0x000f_ffff_ffff_f000 };
            } else {
                table = memory.table();
                let noise = noise(at, shape.entry_size);
                // Without 4-MiB pages their bit is ignored; so it is where only tables can be.
                let ignored = if maps || shape.entry_size == 8 { 0 } else { 0x80 };
                memory.set(at, shape.entry_size, table | 1 | noise | ignored);
            }
        }
    }
    (root, pages)
}

fn requests() -> impl Strategy<Value = Vec<PageRequest>> {
    // A few regions, so that pages come to lie in the same tables.
    let linear =
        (prop::sample::select(vec![0u64, 0x40_0000, 0xc000_0000, 0xff00_0000_0000]), 0..0x100_0000u64);
    let linear = linear.prop_map(|(base, offset)| base + offset);
    prop::collection::vec((prop_oneof![linear, any::<u64>()], 0usize..5, any::<u64>()), 1..20)
}

proptest! {
    #[test]
    fn built_pages_are_found(requests in requests(), others in prop::collection::vec(any::<u64>(), 10)) {
        for shape in SHAPES {
            let mut memory = Memory::default();
            let (root, pages) = build(shape, &mut memory, &requests);
            let bits = shape.levels[0].0 + shape.levels[0].1;
            let model = |linear: u64| {
                let inside = |(base, shift, _): &&(u64, u32, u64)| linear >> shift == base >> shift;
                pages.iter().find(inside).map(|(_, shift, page)| Gpa(page | linear & ((1 << shift) - 1)))
            };
            let edges = pages.iter().flat_map(|(base, shift, _)| {
                [base.wrapping_sub(1), *base, base + (1 << shift) - 1, base.wrapping_add(1 << shift)]
            });
            for linear in edges.chain(others.iter().copied()) {
                let linear = linear & ((1u128 << bits) - 1) as u64;
                // CR3 has flags and a PCID, or nothing below bit 5, which PAE paging uses.
                let flags = if shape.paging == Paging::Pae { 0x18 } else { 0xfff };
                let got = translate(shape.paging, root | linear & flags, linear, |address| memory.read(address));
                prop_assert_eq!(got, model(linear), "{:?} {:#x}", shape.paging, linear);
            }
        }
    }

    #[test]
    fn bytes_are_those_of_the_pages(start in 0xff0u64..0x1000, second in prop::option::of(2u64..8), seed: u64) {
        // Two pages of 4 KiB, the second somewhere else or nowhere.
        let shape = &SHAPES[3];
        let mut memory = Memory::default();
        let mut requests = vec![(0x7000_0000, 9, 0x10_0000)];
        requests.extend(second.map(|page| (0x7000_1000, 9, 0x10_0000 + page * 0x1000)));
        let (root, _) = build(shape, &mut memory, &requests);
        let byte = |address: u64| (address ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes()[7];
        for address in (0x10_0000..0x10_9000u64).step_by(8) {
            let word = u64::from_le_bytes(std::array::from_fn(|index| byte(address + index as u64)));
            memory.words.insert(address, word);
        }
        let bytes = Bytes::new(shape.paging, root, 0x7000_0000 + start, u64::MAX, |at| memory.read(at));
        let expected = (start..start + 15).map_while(|at| {
            let page = if at < 0x1000 { Some(0) } else { second };
            page.map(|page| byte(0x10_0000 + page * 0x1000 + at % 0x1000))
        });
        prop_assert_eq!(bytes.take(15).collect::<Vec<_>>(), expected.collect::<Vec<_>>());
    }

    #[test]
    fn walk_through_random_memory_ends(cr3: u64, linear: u64, seed: u64) {
        for shape in SHAPES {
            let reads = RefCell::new(0);
            let read = |address: Gpa| {
                *reads.borrow_mut() += 1;
                Some((address.0 ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) | seed & 1)
            };
            let got = translate(shape.paging, cr3, linear, read);
            prop_assert!(*reads.borrow() <= shape.levels.len());
            prop_assert!(got.is_none_or(|Gpa(address)| address >> 52 == 0));
        }
    }
}

#[test]
fn without_paging_addresses_are_physical() {
    assert_eq!(translate(Paging::Off, u64::MAX, 0x1234, |_| None), Some(Gpa(0x1234)));
    let read = |Gpa(address)| Some(if address == 0 { 0x99 } else { 0x7766_5544_3322_1100 });
    let bytes = Bytes::new(Paging::Off, 0, 0xffff_fffe, 0xffff_ffff, read);
    assert_eq!(bytes.take(4).collect::<Vec<_>>(), [0x66, 0x77, 0x99, 0], "a 32-bit address wraps");
}
