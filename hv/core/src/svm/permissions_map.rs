//! The MSR permissions map, derived from the policy's tables. AMD APM Vol. 2, 15.11 "MSR Intercepts".

use crate::policy::msr::Row;

/// The size of the map in bytes.
pub const BYTES: usize = 8192;

/// The number of MSRs in each part of the map.
const PART: u32 = 0x2000;

/// The first MSR of each part. Accesses to MSRs in no part always exit. The last 2 KiB of the map are reserved.
const PARTS: [u32; 3] = [0, 0xc000_0000, 0xc001_0000];

/// Returns the map with which, of the MSRs that it covers, exactly those accesses exit that `tables` do not leave to
/// the CPU.
pub fn derive(tables: &[&[Row]]) -> [u8; BYTES] {
    let mut map = [0; BYTES];
    for row in tables.iter().copied().flatten() {
        // An MSR has two bits: bit 0 for reads, bit 1 for writes. There is only one map, so watched writes always exit.
        let bits = u8::from(row.read.exits()) | u8::from(row.write.exits(true)) << 1;
        for (part, first) in PARTS.into_iter().enumerate() {
            for indices in row.indices {
                // A row may have MSRs that the map does not cover.
                for index in *indices.start().max(&first)..=*indices.end().min(&(first + PART - 1)) {
                    let number = part * PART as usize + (index - first) as usize;
                    map[number / 4] |= bits << (number % 4 * 2);
                }
            }
        }
    }
    map
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::policy::msr::{Effect, Read, Write, policy};
    use crate::svm::msrs::MSRS;

    const EDGES: [(u32, usize); 3] = [(0, 0), (0xc000_0000, 0x800), (0xc001_0000, 0x1000)];

    proptest! {
        #[test]
        #[cfg_attr(miri, ignore = "24,000 MSRs take minutes there")]
        fn the_map_has_the_bits_of_every_row_and_no_others(
            rows in proptest::collection::vec((0usize..4, 0u32..0x2010, 0u32..40, 0usize..4), 0..12),
        ) {
            // Some MSRs are in no part, so that they must not set a bit.
            let firsts = [0, 0xc000_0000, 0xc001_0000, 0x4b56_4d00];
            let rows: Vec<Row> = rows
                .into_iter()
                .map(|(part, offset, length, kind)| {
                    let first = firsts[part] + offset;
                    let read = if kind & 1 == 0 { Read::Native } else { Read::Refuse };
                    let write = if kind & 2 == 0 { Write::Native } else { Write::Keep };
                    Row::new(vec![first..=first + length].leak(), read, write)
                })
                .collect();
            let map = derive(&[&rows]);
            let mut left = map;
            for (first, at) in EDGES {
                for offset in 0..0x2000usize {
                    let (byte, shift) = (at + offset / 4, offset % 4 * 2);
                    let covers = |row: &&Row| row.contains(first + offset as u32);
                    let bits = rows.iter().filter(covers).fold(0, |bits, row| {
                        let read = !matches!(row.read, Read::Native);
                        let write = !matches!(row.write, Write::Native);
                        bits | u8::from(read) | u8::from(write) << 1
                    });
                    prop_assert_eq!(map[byte] >> shift & 3, bits, "{:#x}", first + offset as u32);
                    left[byte] &= !(3 << shift);
                }
            }
            prop_assert!(left.iter().all(|byte| *byte == 0));
        }
    }

    /// Returns whether a read and a write of the MSR `index` exit.
    fn exits(map: &[u8; BYTES], index: u32) -> (bool, bool) {
        let (_, at) =
            EDGES.into_iter().find(|(first, _)| index & !0x1fff == *first).expect("a part covers the MSR");
        let bit = 2 * (index & 0x1fff) as usize;
        let set = |bit: usize| map[at + bit / 8] >> (bit % 8) & 1 == 1;
        (set(bit), set(bit + 1))
    }

    #[test]
    #[cfg_attr(miri, ignore = "24,000 MSRs take minutes there")]
    fn the_map_agrees_with_the_policy_for_every_msr_that_it_covers() {
        let map = derive(MSRS);
        for index in EDGES.into_iter().flat_map(|(first, _)| first..first + PART) {
            let (read, write) = policy(MSRS, index);
            let expected = (!matches!(read, Read::Native), !matches!(write, Write::Native));
            assert_eq!(exits(&map, index), expected, "{index:#x}");
        }
        assert!(map[0x1800..].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn an_access_with_a_handler_exits() {
        const READ: Read = Read::Handled(|context| context.native());
        const WRITE: Write = Write::Handled(|value, _| Ok(Effect::Write(value)));
        let rows = [
            Row::new(&[0x140..=0x140, 0xc001_0140..=0xc001_0141], READ, Write::Native),
            Row::new(&[0x142..=0x142], Read::Native, WRITE),
            Row::new(&[0x143..=0x143], Read::Native, Write::HandledIfWatched(|_, _| Ok(Effect::Nothing))),
        ];
        let map = derive(&[&rows]);
        for (index, expected) in [
            (0x140, (true, false)),
            (0xc001_0141, (true, false)),
            (0x142, (false, true)),
            (0x143, (false, true)),
            (0x141, (false, false)),
        ] {
            assert_eq!(exits(&map, index), expected, "{index:#x}");
        }
    }
}
