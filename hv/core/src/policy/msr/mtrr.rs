//! The MTRRs. The guest's value is written to the CPU, and the memory types of the second stage's pages change with it.

use super::row::{Effect, Read, Row, Write};

/// The row for the tables.
pub const ROW: Row = Row::new(
    &[
        // The variable ranges, as many as there are indices for. The CPU raises #GP for those that it lacks.
        0x200..=0x24f,
        // The fixed ranges.
        0x250..=0x250,
        0x258..=0x259,
        0x268..=0x26f,
        // The default type.
        0x2ff..=0x2ff,
    ],
    Read::Native,
    Write::Handled(|value, _| Ok(Effect::WriteMtrr(value))),
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_row_leaves_out_the_pat_between_the_mtrrs() {
        let has = [0x200, 0x277, 0x27f, 0x2fe, 0x2ff].map(|index| ROW.contains(index));
        assert_eq!(has, [true, false, false, false, true]);
    }
}
