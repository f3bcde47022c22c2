//! Multiboot2 boot information.

use vidar_core::loader::multiboot2::parse;
use vidar_core::mem::addr::Hpa;
use vidar_core::mem::map::RAM_END;

use crate::target::{Target, assert_within, bounded};

const TARGET: Target = Target { mend, ..Target::new("multiboot2", check) };

/// Where the loader has put the information.
const START: Hpa = Hpa(0x1_0000);

/// Makes the total size that of the input, which is filled up to whole words.
fn mend(bytes: &mut [u8]) {
    let size = bytes.len().next_multiple_of(8) as u32;
    bytes.iter_mut().zip(size.to_le_bytes()).for_each(|(old, new)| *old = new);
}

fn check(input: &[u8]) {
    let words: Vec<u64> = input
        .chunks(8)
        .map(|chunk| chunk.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte)))
        .collect();
    let bytes = zerocopy::IntoBytes::as_bytes(&words[..]);
    let Ok(info) = parse(bytes, START) else { return };

    assert_eq!(info.place.start, START);
    assert!(info.place.end.0 - START.0 <= bytes.len() as u64);
    for text in [info.command_line, info.loader] {
        assert_within(text.0, bytes);
        assert!(!text.to_string().chars().any(char::is_control));
    }
    // A tag has at least 8 bytes.
    for module in bounded(info.modules.clone(), bytes.len() / 8) {
        assert_within(module.command_line.0, bytes);
    }
    assert_eq!(info.occupied().last(), Some(info.place.clone()));
    assert!(info.initrds().count() <= info.modules.clone().count());
    if let Some(rsdp) = info.rsdp {
        assert_within(rsdp, bytes);
        assert!(matches!(rsdp.len(), 20 | 36));
    }
    if let Some(efi) = &info.efi {
        assert_within(efi.memory_map, bytes);
    }
    // An entry of e820 has at least 24 bytes, a descriptor of EFI 40.
    let regions = bounded(info.memory.iter(), bytes.len() / 24);
    assert!(info.memory.usable().iter().all(|range| range.start < range.end && range.end <= RAM_END));
    assert!(bounded(info.memory.regions(true), regions.len()).iter().all(|region| !region.range.is_empty()));
    bounded(info.boot_services(), bytes.len() / 40);
}

#[test]
fn multiboot2_information() {
    TARGET.run();
}
