//! The EFI memory map. The input is what Multiboot2 has of it: the size of a descriptor, the version of descriptors,
//! and these. What is hidden in it follows from its last bytes.

use std::fs;
use std::ops::Range;
use std::path::Path;

use vidar_core::firmware::efi_map::{boot_services, hide, memory_map};
use vidar_core::mem::addr::{Hpa, PAGE_SIZE, overlaps};
use vidar_core::mem::map::RAM_END;

use crate::target::{Target, bounded};

const TARGET: Target = Target { recorded, ..Target::new("efi-map", check) };

/// The bytes of a descriptor that have a meaning.
const DESCRIPTOR: usize = 40;
const RESERVED: u32 = 0;

/// Returns the maps of real machines.
fn recorded() -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/maps");
    let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let read = |path| {
        let text = fs::read_to_string(path).unwrap();
        let descriptors: Vec<_> = text.lines().filter_map(descriptor).flatten().collect();
        [&48u32.to_le_bytes()[..], &1u32.to_le_bytes(), &descriptors].concat()
    };
    let maps: Vec<_> = paths.map(read).filter(|map| map.len() > 8).collect();
    assert!(maps.len() >= 2, "only {} maps of EFI", maps.len());
    maps
}

/// Returns a line of such a map as firmware has it, if it is a descriptor of EFI.
fn descriptor(line: &str) -> Option<Vec<u8>> {
    let (range, kind) = line.split_once(" efi-")?;
    let (start, end) = range.split_once(' ')?;
    let [start, end] = [start, end].map(|number| u64::from_str_radix(number, 16).unwrap());
    let kind = kind.parse().unwrap();
    Some([kind, start, 0, (end - start) / PAGE_SIZE, 15, 0].map(u64::to_le_bytes).concat())
}

fn check(input: &[u8]) {
    let size = input.first_chunk().map_or(0, |size| u32::from_le_bytes(*size));
    let map = input.get(8..).unwrap_or_default();
    let most = map.len() / DESCRIPTOR;

    let memory = memory_map(map, size);
    let regions = bounded(memory.iter(), most);
    assert!(memory.usable().iter().all(|range| range.start < range.end && range.end <= RAM_END));
    assert!(bounded(memory.regions(true), regions.len()).iter().all(|region| !region.range.is_empty()));
    bounded(boot_services(map, size), most);

    let hidden = hidden(map);
    let mut shown = Vec::new();
    let mut puts = 0;
    hide(map, size, &hidden, |bytes| {
        puts += 1;
        // What is hidden cuts a descriptor into at most five, each put in two pieces.
        assert!(puts <= 2 * (2 * hidden.len() + 1) * most, "{puts} pieces");
        shown.extend_from_slice(bytes);
    });
    assert!(size == 0 || shown.len().is_multiple_of(size as usize));
    for (kind, range) in descriptors(&shown, size as usize) {
        let seen = hidden.iter().any(|hidden| overlaps(hidden, &range));
        assert!(!seen || kind == RESERVED, "{kind} at {range:?} with {hidden:?} hidden");
    }
    let mut again = Vec::new();
    hide(map, size, &[], |bytes| again.extend_from_slice(bytes));
    assert!(map.starts_with(&again), "nothing is hidden, and the map is another");
}

/// Returns two ranges of pages near the start of a descriptor, as the last bytes of the map say.
fn hidden(map: &[u8]) -> [Range<Hpa>; 2] {
    let choice =
        map.last_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let index = choice as usize % (map.len() / 48 + 1);
    let start =
        map.get(index * 48 + 8..).and_then(<[u8]>::first_chunk).map_or(0, |start| u64::from_le_bytes(*start));
    let first = (start / PAGE_SIZE).min(1 << 50) + (choice >> 48) % 8;
    let pages = |first: u64, pages: u64| Hpa(first * PAGE_SIZE)..Hpa((first + pages) * PAGE_SIZE);
    [pages(first, 1 + (choice >> 32) % 512), pages(first + 600, 1 + (choice >> 40) % 4)]
}

/// Kind and range of each descriptor; those that run past the end of the space end there.
fn descriptors(map: &[u8], size: usize) -> impl Iterator<Item = (u32, Range<Hpa>)> {
    let word = |bytes: &[u8], at: usize| u64::from_le_bytes(*bytes[at..].first_chunk().unwrap());
    map.chunks_exact(size.max(DESCRIPTOR)).map(move |bytes| {
        let start = word(bytes, 8);
        let end = word(bytes, 24).checked_mul(PAGE_SIZE).and_then(|size| start.checked_add(size));
        (word(bytes, 0) as u32, Hpa(start)..Hpa(end.unwrap_or(u64::MAX)))
    })
}

#[test]
fn efi_memory_map() {
    TARGET.run();
}
