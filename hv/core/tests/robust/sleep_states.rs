//! The names of sleep states in a table with code.

use vidar_core::firmware::acpi::{CHECKSUM, HEADER, ReadOnly};
use vidar_core::firmware::sleep::withdraw;

use crate::madt::{Memory, sum};
use crate::target::Target;

const TARGET: Target = Target::new("sleep-states", check);

fn names(table: &[u8]) -> usize {
    let code = table.get(HEADER..).unwrap_or_default();
    code.windows(4).filter(|name| [b"_S2_", b"_S3_"].contains(&(*name).try_into().unwrap())).count()
}

/// Checks that the names go and nothing else.
pub fn check(input: &[u8]) {
    let mut table = Memory::new(input, usize::MAX);
    assert_eq!(withdraw(&mut table), Ok(names(input)));
    table.assert_few_reads();
    assert_eq!(names(&table.bytes), 0);
    assert_eq!(sum(&table.bytes), sum(input));
    for (at, (before, after)) in input.iter().zip(&table.bytes).enumerate() {
        assert!(before == after || at == CHECKSUM || (*before, *after) == (b'_', b'X'), "byte {at}");
    }

    for rom_from in [0, HEADER, input.len() / 2] {
        let mut rom = Memory::new(input, rom_from);
        let result = withdraw(&mut rom);
        rom.assert_few_reads();
        assert!(result.is_ok() || result == Err(ReadOnly));
        assert!(result.is_err() || names(&rom.bytes) == 0, "a name is left and nobody says so");
    }
}

#[test]
fn names_of_sleep_states() {
    TARGET.run();
}
