//! The MSR bitmap, derived from the policy table. Intel SDM Vol. 3C, 25.6.9 "MSR-Bitmap Address".

use crate::policy::msr::{Read, Row, Write};

/// Bytes of the bitmap: four parts of 1 KiB.
pub const BYTES: usize = 4096;

/// The two ranges of MSRs that the bitmap covers; all others always exit.
const LOW: core::ops::Range<u32> = 0..0x2000;
const HIGH: core::ops::Range<u32> = 0xc000_0000..0xc000_2000;

/// Offsets of the parts: reads of low and high MSRs, then writes.
const READ: [usize; 2] = [0, 1024];
const WRITE: [usize; 2] = [2048, 3072];

/// The bitmap in which exactly those accesses exit that `tables` do not leave to the CPU, and writes of EFER if they are
/// watched.
pub fn derive(tables: &[&[Row]], watch_efer: bool) -> [u8; BYTES] {
    let mut bitmap = [0; BYTES];
    for row in tables.iter().copied().flatten() {
        for (range, part) in [LOW, HIGH].into_iter().zip([0, 1]) {
            let mut set = |index: u32, part: usize| {
                let bit = (index - range.start) as usize;
                bitmap[part + bit / 8] |= 1 << (bit % 8);
            };
            // Rows may reach far beyond what the bitmap covers.
            for index in *row.indices.start().max(&range.start)..=*row.indices.end().min(&(range.end - 1)) {
                if row.read != Read::Native {
                    set(index, READ[part]);
                }
                let native = match row.write {
                    Write::Native => true,
                    Write::EferIfWatched => !watch_efer,
                    _ => false,
                };
                if !native {
                    set(index, WRITE[part]);
                }
            }
        }
    }
    bitmap
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::msr::policy;
    use crate::vmx::msrs::MSRS;

    #[test]
    #[cfg_attr(miri, ignore = "16,000 MSRs take minutes there")]
    fn agrees_with_the_policy_for_every_msr_that_it_covers() {
        for watched in [false, true] {
            let bitmap = derive(MSRS, watched);
            for (range, read, write) in [(LOW, READ[0], WRITE[0]), (HIGH, READ[1], WRITE[1])] {
                for index in range.clone() {
                    let bit = (index - range.start) as usize;
                    let exits = |part: usize| bitmap[part + bit / 8] >> (bit % 8) & 1 == 1;
                    let (on_read, on_write) = policy(MSRS, index);
                    assert_eq!(exits(read), on_read != Read::Native, "read {index:#x}");
                    let efer_passes = on_write == Write::EferIfWatched && !watched;
                    let passes = on_write == Write::Native || efer_passes;
                    assert_eq!(exits(write), !passes, "write {index:#x}");
                }
            }
        }
    }
}
