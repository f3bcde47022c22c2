//! The firmware's lists of IOMMUs.

use std::collections::HashSet;

use vidar_core::firmware::acpi::{CHECKSUM, ReadOnly};
use vidar_core::firmware::{dmar, ivrs};
use vidar_core::mem::addr::PAGE_SIZE;

use crate::madt::{Memory, mend, sum};
use crate::target::Target;

const DMAR: Target = Target { mend, ..Target::new("dmar", check_dmar) };
const IVRS: Target = Target { mend, ..Target::new("ivrs", check_ivrs) };

/// The flag by which firmware wants external devices to be guarded against: its byte, and its bit.
const OPT_IN: (usize, u8) = (37, 4);

/// Checks the parser of the list of Intel's IOMMUs, and the change of it.
fn check_dmar(input: &[u8]) {
    let list = dmar::parse(input);
    // The shortest structure of an IOMMU has 16 bytes.
    assert!(list.units.len() + list.reserved.len() + list.beyond <= input.len() / 16);
    assert!(list.units.len() <= dmar::MAX_UNITS && list.reserved.len() <= dmar::MAX_RESERVED);
    let places: HashSet<_> = list.units.iter().map(|unit| unit.registers).collect();
    assert_eq!(places.len(), list.units.len(), "an IOMMU is listed twice");
    assert!(places.iter().all(|at| at.0 != 0 && at.is_aligned(PAGE_SIZE) && at.0 >> 52 == 0));
    assert!(list.reserved.iter().all(|range| !range.is_empty()));

    let (flags, bit) = OPT_IN;
    let mut table = Memory::new(input, usize::MAX);
    assert_eq!(dmar::withdraw_opt_in(&mut table), Ok(()));
    table.assert_few_reads();
    assert_eq!(sum(&table.bytes), sum(input));
    assert!(table.bytes.get(flags).is_none_or(|flags| flags & bit == 0));
    for (at, (before, after)) in input.iter().zip(&table.bytes).enumerate() {
        assert!(before == after || at == CHECKSUM || at == flags, "byte {at} was changed");
    }
    match dmar::withdraw_opt_in(&mut Memory::new(input, 0)) {
        Ok(()) => assert_eq!(table.bytes, input),
        Err(ReadOnly) => assert_ne!(table.bytes, input),
    }
}

/// Checks the parser of the list of AMD's IOMMUs.
fn check_ivrs(input: &[u8]) {
    let list = ivrs::parse(input);
    assert!(list.units.len() <= input.len() / 16 && list.units.len() <= ivrs::MAX_UNITS);
    let places: HashSet<_> = list.units.iter().collect();
    assert_eq!(places.len(), list.units.len(), "an IOMMU is listed twice");
}

#[test]
fn iommus_of_the_dmar() {
    DMAR.run();
}

#[test]
fn iommus_of_the_ivrs() {
    IVRS.run();
}
