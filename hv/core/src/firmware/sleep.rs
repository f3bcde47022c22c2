//! Suspend to RAM is not offered to the guest: the machine would wake up without Vidar, whose CPUs have lost all by then.
//!
//! An operating system finds the sleep states of a machine by their names among firmware's objects: ACPI Specification 6.5,
//! 7.4.2 "\_Sx states". A name that is another is no state. S1 loses nothing, S4 and S5 go through the boot loader again,
//! and suspend to idle is none of them: they stay.

use super::acpi::{HEADER, ReadOnly, Table, amend};

/// The states in which CPUs lose what they hold.
const LOST: [&[u8; 4]; 2] = [b"_S2_", b"_S3_"];
/// The first letter of their new names.
const LETTER: u8 = b'X';

/// Renames the states in a table with code, and returns how many names there were.
///
/// # Errors
/// [`ReadOnly`] where a name stays what it was.
pub fn withdraw(table: &mut impl Table) -> Result<usize, ReadOnly> {
    let (mut renamed, mut from) = (0, HEADER);
    while let Some(at) = next(table.bytes(), from) {
        amend(table, at, LETTER)?;
        (renamed, from) = (renamed + 1, at + 1);
    }
    Ok(renamed)
}

/// Where the first of the names at or after `from` is.
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
    fn the_names_go_and_nothing_else() {
        // Name (_S1_, Package () { 1 }), and so on, then a name that only begins like one.
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
        fn any_bytes_keep_their_sum(mut table in proptest::collection::vec(any::<u8>(), 0..200), at in any::<prop::sample::Index>()) {
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
