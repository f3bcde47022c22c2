//! The way from the ACPI root pointer to the tables. The input is the root pointer and the memory that it leads to. Its
//! first byte has the address 0, and the same memory is at the end of the space of addresses, where adding to an
//! address overflows.

use std::cell::Cell;
use std::ops::Range;

use vidar_core::firmware::acpi::{HEADER, dsdt, find};
use vidar_core::firmware::rsdp;
use vidar_core::mem::addr::Hpa;

use crate::target::{Target, bounded};
use crate::{madt, sleep_states};

const TARGET: Target = Target::new("acpi", check);

/// Bytes of a root pointer.
const RSDP: usize = 36;
/// The most bytes of a table that Vidar believes in, and so of the table that lists the others.
const PLAUSIBLE: usize = 16 << 20;

fn check(input: &[u8]) {
    let reads = Cell::new(0);
    let read = |from: Hpa, to: &mut [u8]| {
        reads.set(reads.get() + 1);
        let bytes = place(from, input).and_then(|from| input.get(from..)?.get(..to.len()));
        if let Some(bytes) = bytes {
            to.copy_from_slice(bytes);
        }
        bytes.is_some()
    };
    let root = &input[..input.len().min(RSDP)];
    for signature in [*b"APIC", *b"FACP", *b"SSDT"] {
        reads.set(0);
        // No more entries than memory has room for, however long the table claims to be.
        for table in bounded(find(root, signature, read), input.len() / 4) {
            check_table(&table, signature, input);
            let Some(bytes) = bytes(&table, input) else { continue };
            match &signature {
                b"APIC" => madt::check(bytes),
                b"SSDT" => sleep_states::check(bytes),
                _ => {
                    if let Some(table) = dsdt(bytes, read) {
                        check_table(&table, *b"DSDT", input);
                    }
                }
            }
        }
        // Two for each entry, two for the table that lists them, and two for each DSDT.
        assert!(reads.get() <= 4 * (PLAUSIBLE / 4) + 4, "{} reads", reads.get());
    }

    let area = Hpa(0xe_0000)..Hpa(0xe_0000 + input.len() as u64);
    if let Some(at) = rsdp::find(root, input, &area) {
        assert!(area.contains(&at) && at.is_aligned(16));
    }
}

/// A table that was found is where its header is, and has a size that can be.
fn check_table(table: &Range<Hpa>, signature: [u8; 4], input: &[u8]) {
    let size = table.end.0 - table.start.0;
    assert!((HEADER as u64..=PLAUSIBLE as u64).contains(&size));
    assert!(place(table.start, input).is_some_and(|start| input[start..].starts_with(&signature)));
}

/// Where in the input the byte at an address is.
fn place(address: Hpa, input: &[u8]) -> Option<usize> {
    let size = input.len() as u64;
    let low = if address.0 < size { address.0 } else { address.0.wrapping_add(size) };
    (low < size).then_some(low as usize)
}

/// Returns the bytes of a table, if all of it can be read.
fn bytes<'a>(table: &Range<Hpa>, input: &'a [u8]) -> Option<&'a [u8]> {
    input.get(place(table.start, input)?..)?.get(..(table.end.0 - table.start.0) as usize)
}

#[test]
fn acpi_tables() {
    TARGET.run();
}
