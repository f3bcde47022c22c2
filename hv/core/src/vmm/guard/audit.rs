//! The table of `guard=audit`: which functions have written to the kernel's code, and how often.

use super::names::Names;
use super::target::Target;
use crate::mem::addr::Gpa;
use crate::vmm::cpu_state::CpuState;

/// The number of addresses of a call chain that are kept: as many as a hypercall returns.
const FRAMES: usize = 8;
/// The number of rows. A boot and a function tracer have about ten.
const ROWS: usize = 32;

/// The writes by one call chain.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Row {
    /// The address of the instruction and those of its callers, and zeros after them.
    pub chain: [u64; FRAMES],
    /// The number of writes.
    pub count: u64,
    /// The address of the last one.
    pub last: Gpa,
}

/// The table.
#[derive(Debug, Default)]
pub struct Audit {
    rows: [Row; ROWS],
    /// The number of writes that have found no free row.
    lost: u64,
}

impl Audit {
    /// Notes that the CPU with the number `cpu`, which is in the state `state`, has written to the code at `address`.
    /// The first write of each call chain is reported.
    pub fn note(&mut self, cpu: u32, state: &CpuState, names: Names<'_>, target: &Target, address: Gpa) {
        let mut chain = [0; FRAMES];
        names.fill(state, &mut chain);
        if self.count(chain, address) {
            let written = names.name(target.address_in_image(address));
            log::info!("CPU {cpu} writes to the kernel's code, in {written}, by {}", names.chain(&chain));
        }
    }

    /// Returns a row, and the number of writes that have found no free one.
    pub fn row(&self, index: u64) -> Option<(Row, u64)> {
        let row = self.rows.get(usize::try_from(index).ok()?)?;
        Some((*row, self.lost))
    }

    /// Counts a write to `address` by this call chain. Returns true if it is the first one.
    fn count(&mut self, chain: [u64; FRAMES], address: Gpa) -> bool {
        match self.rows.iter_mut().find(|row| row.count == 0 || row.chain == chain) {
            Some(row) => {
                *row = Row { chain, count: row.count + 1, last: address };
                row.count == 1
            }
            None => {
                self.lost += 1;
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_call_chain_has_a_row_as_long_as_there_is_room() {
        let mut audit = Audit::default();
        let chain = |first: u64| [first, 7, 0, 0, 0, 0, 0, 0];
        for number in 0..ROWS as u64 {
            assert!(audit.count(chain(number), Gpa(number)), "{number}");
        }
        assert!(!audit.count(chain(3), Gpa(0x1000)));
        assert!(!audit.count(chain(1000), Gpa(0x2000)));
        assert_eq!(audit.rows[3], Row { chain: chain(3), count: 2, last: Gpa(0x1000) });
        assert_eq!((audit.rows[4].count, audit.lost), (1, 1));
    }
}
