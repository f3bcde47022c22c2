//! The MSR bitmap, derived from the policy table. Intel SDM Vol. 3C, 25.6.9 "MSR-Bitmap Address".

use crate::policy::msr::Row;

/// The size of the bitmap in bytes: four parts of 1 KiB.
pub const BYTES: usize = 4096;

/// The low MSRs that the bitmap covers. Accesses to MSRs that are neither here nor in [`HIGH`] always exit.
const LOW: core::ops::Range<u32> = 0..0x2000;
/// The high MSRs that the bitmap covers.
const HIGH: core::ops::Range<u32> = 0xc000_0000..0xc000_2000;

/// The offsets in bytes of the parts for reads of low and of high MSRs.
const READ: [usize; 2] = [0, 1024];
/// The offsets in bytes of the parts for writes of low and of high MSRs.
const WRITE: [usize; 2] = [2048, 3072];

/// Returns the bitmap with which, of the MSRs that it covers, exactly those accesses exit that `tables` do not leave to
/// the CPU. `watched` is as in [`Write::exits`](crate::policy::msr::Write::exits).
pub fn derive(tables: &[&[Row]], watched: bool) -> [u8; BYTES] {
    let mut bitmap = [0; BYTES];
    for row in tables.iter().copied().flatten() {
        let (read, write) = (row.read.exits(), row.write.exits(watched));
        for (range, part) in [LOW, HIGH].into_iter().zip([0, 1]) {
            let mut set = |index: u32, part: usize| {
                let bit = (index - range.start) as usize;
                bitmap[part + bit / 8] |= 1 << (bit % 8);
            };
            for indices in row.indices {
                // A row may have MSRs that the bitmap does not cover.
                for index in *indices.start().max(&range.start)..=*indices.end().min(&(range.end - 1)) {
                    if read {
                        set(index, READ[part]);
                    }
                    if write {
                        set(index, WRITE[part]);
                    }
                }
            }
        }
    }
    bitmap
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::msr::{Effect, Read, Write, policy};
    use crate::vmx::msrs::MSRS;

    /// Returns whether a read and a write of the MSR `index` exit.
    fn exits(bitmap: &[u8; BYTES], index: u32) -> (bool, bool) {
        let part = usize::from(HIGH.contains(&index));
        let bit = (index & 0x1fff) as usize;
        let set = |part: usize| bitmap[part + bit / 8] >> (bit % 8) & 1 == 1;
        (set(READ[part]), set(WRITE[part]))
    }

    #[test]
    #[cfg_attr(miri, ignore = "16,000 MSRs take minutes there")]
    fn the_bitmap_agrees_with_the_policy_for_every_msr_that_it_covers() {
        for watched in [false, true] {
            let bitmap = derive(MSRS, watched);
            for index in LOW.chain(HIGH) {
                let (read, write) = policy(MSRS, index);
                let passes =
                    matches!(write, Write::Native) || matches!(write, Write::HandledIfWatched(_)) && !watched;
                let expected = (!matches!(read, Read::Native), !passes);
                assert_eq!(exits(&bitmap, index), expected, "{index:#x}");
            }
        }
    }

    #[test]
    fn an_access_with_a_handler_exits() {
        const READ: Read = Read::Handled(|context| context.native());
        const WRITE: Write = Write::Handled(|value, _| Ok(Effect::Write(value)));
        let rows = [
            Row::new(&[0x140..=0x140, 0xc000_0140..=0xc000_0141], READ, Write::Native),
            Row::new(&[0x142..=0x142], Read::Native, WRITE),
        ];
        for watched in [false, true] {
            let bitmap = derive(&[&rows], watched);
            for (index, expected) in [
                (0x140, (true, false)),
                (0xc000_0141, (true, false)),
                (0x142, (false, true)),
                (0x141, (false, false)),
            ] {
                assert_eq!(exits(&bitmap, index), expected, "{index:#x}");
            }
        }
    }
}
