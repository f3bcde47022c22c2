//! Hides suspend to RAM (S2 and S3) from the guest: the machine would wake up in the guest without Vidar, because the
//! CPUs have lost their state by then.
//!
//! An operating system finds the sleep states of a machine by the names of objects in the firmware's AML tables: ACPI
//! Specification 6.5, 7.4.2 "\_Sx states". An object with another name is no sleep state. S1 and suspend to idle keep
//! the CPUs' state, and after S4 and S5 the machine boots through GRUB and Vidar again, so these stay.

use super::acpi::{HEADER, ReadOnly, Table, amend};

/// The names of the states in which CPUs lose their state.
const LOST: [&[u8; 4]; 2] = [b"_S2_", b"_S3_"];
/// The first letter of the new names.
const LETTER: u8 = b'X';

/// Renames the states in an AML table, and returns the number of names that it has changed.
///
/// # Errors
/// [`ReadOnly`] if a name could not be changed.
pub fn withdraw(table: &mut impl Table) -> Result<usize, ReadOnly> {
    let (mut renamed, mut from) = (0, HEADER);
    while let Some(at) = next(table.bytes(), from) {
        amend(table, at, LETTER)?;
        (renamed, from) = (renamed + 1, at + 1);
    }
    Ok(renamed)
}

/// Returns the offset of the first such name at or after `from`.
fn next(table: &[u8], from: usize) -> Option<usize> {
    let rest = table.get(from..)?;
    let at = rest.windows(4).position(|name| LOST.iter().any(|lost| name == *lost))?;
    Some(from + at)
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use proptest::prelude::*;

    use super::*;
    use crate::firmware::acpi::{CHECKSUM, Rom};

    fn sum(bytes: &[u8]) -> u8 {
        bytes.iter().fold(0, |sum: u8, byte| sum.wrapping_add(*byte))
    }

    #[test]
    fn only_the_names_and_the_checksum_change() {
        // The objects are Name (_S1_, Package () { 1 }), and so on. One name only begins like that of a state.
        let mut table = vec![0; HEADER];
        for state in [b"_S1_", b"_S2_", b"_S3_", b"_S4_", b"_S3D", b"_S3_"] {
            table.push(0x08);
            table.extend_from_slice(state);
            table.extend_from_slice(&[0x12, 4, 1, 0x0a, 1]);
        }
        table[CHECKSUM] = 0u8.wrapping_sub(sum(&table));
        let before = table.clone();
        assert_eq!(withdraw(&mut table), Ok(3));
        assert_eq!(sum(&table), 0);
        let names: Vec<_> = table[HEADER..].chunks(10).map(|object| object[1..5].to_vec()).collect();
        assert_eq!(names, [b"_S1_", b"XS2_", b"XS3_", b"_S4_", b"_S3D", b"XS3_"]);
        let differing = before.iter().zip(&table).filter(|(before, after)| before != after).count();
        assert_eq!(differing, 4, "three letters and the checksum");
        assert_eq!(withdraw(&mut table), Ok(0));
        assert_eq!(withdraw(&mut Rom(before)), Err(ReadOnly));
    }

    proptest! {
        #[test]
        fn sum_of_any_bytes_is_kept(mut table in proptest::collection::vec(any::<u8>(), 0..200), at in any::<prop::sample::Index>()) {
            if table.len() > HEADER + 4 {
                let at = HEADER + at.index(table.len() - HEADER - 4);
                table[at..at + 4].copy_from_slice(b"_S3_");
            }
            let before = sum(&table);
            withdraw(&mut table).unwrap();
            prop_assert_eq!(sum(&table), before);
            prop_assert!(!table.get(HEADER..).unwrap_or_default().windows(4).any(|name| name == b"_S3_"));
        }
    }
}
