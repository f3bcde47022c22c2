//! Accesses that a unit has refused. VT-d specification, 11.4.13 "Fault Recording Registers".

use vidar_abi::DmaFault;

/// The first reason of faults of interrupt remapping. Those are the guest's.
const INTERRUPTS: u8 = 0x20;

/// Decodes a record, which must hold a fault. Returns `None` for a fault of interrupt remapping.
pub const fn decode(record: [u32; 4]) -> Option<DmaFault> {
    let [low, high, requester, kind] = record;
    let reason = kind as u8;
    if reason >= INTERRUPTS {
        return None;
    }
    let address = (high as u64) << 32 | (low & 0xffff_f000) as u64;
    Some(DmaFault { requester: requester as u16, write: kind >> 30 & 1 == 0, address, reason })
}

/// The number of faults that are kept.
const KEPT: usize = 8;

/// The number of lines in the log for a unit. A kernel could otherwise push all others out of it, by many devices in
/// turn.
const LINES: u8 = 16;

/// The last faults, and how many there were.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Faults {
    last: [Option<DmaFault>; KEPT],
    count: u64,
    lines: u8,
}

impl Faults {
    /// Returns the number of faults so far.
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// Returns the last faults, the oldest first.
    pub fn last(&self) -> impl Iterator<Item = DmaFault> {
        let first = self.count as usize % KEPT;
        (0..KEPT).filter_map(move |index| self.last[(first + index) % KEPT])
    }

    /// Adds a fault, and logs it if its requester has none among the last ones and the log does not have too many.
    pub fn add(&mut self, fault: DmaFault) {
        if self.is_news(fault) {
            self.lines += 1;
            log::warn!("DMA: {fault}, and was refused");
            if self.lines == LINES {
                log::warn!("DMA: no more of them are logged; `vidarctl dma` has the last ones");
            }
        }
        self.last[self.count as usize % KEPT] = Some(fault);
        self.count += 1;
    }

    fn is_news(&self, fault: DmaFault) -> bool {
        self.lines < LINES && self.last().all(|known| known.requester != fault.requester)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_decoded() {
        let write = decode([0x20_0000, 1, 0x0020, 0x8000_0006]).expect("a fault of translation");
        assert_eq!(write, DmaFault { requester: 0x20, write: true, address: 0x1_0020_0000, reason: 6 });
        let read = decode([0x3000, 0, 0x1afe, 0xc000_0005]).expect("a fault of translation");
        assert_eq!(read, DmaFault { requester: 0x1afe, write: false, address: 0x3000, reason: 5 });
        assert_eq!(decode([0, 0, 0x20, 0x8000_0022]), None, "a fault of interrupt remapping");
    }

    #[test]
    fn number_of_lines_has_a_bound() {
        let fault = |requester| DmaFault { requester, write: true, address: 0, reason: 5 };
        let mut faults = Faults::default();
        (0..100).for_each(|_| faults.add(fault(7)));
        assert_eq!(faults.lines, 1);
        (0..1000).for_each(|index| faults.add(fault(index % 9)));
        assert_eq!((faults.lines, faults.count()), (LINES, 1100));
    }

    #[test]
    fn last_faults_are_kept_in_their_order() {
        let fault = |address| DmaFault { requester: 8, write: true, address, reason: 5 };
        let mut faults = Faults::default();
        assert_eq!((faults.count(), faults.last().count()), (0, 0));
        (0..3).for_each(|address| faults.add(fault(address)));
        assert!(faults.last().eq((0..3).map(fault)));
        (3..21).for_each(|address| faults.add(fault(address)));
        assert!(faults.last().eq((13..21).map(fault)));
        assert_eq!(faults.count(), 21);
    }
}
