//! PEBS (Processor Event Based Sampling), which the guest can neither see nor enable.
//!
//! With PEBS the CPU may write event records after an exit, at the guest's linear address but in Vidar's address space.
//! So the guest cannot enable it, and the CPU's capabilities do not report it: Intel SDM Vol. 3B, 20.8
//! "IA32_PERF_CAPABILITIES MSR Enumeration".

use crate::policy::msr::{Read, Row, Write};
use crate::x86::msr::{FIXED0_CFG_C, GP0_CFG_C, PEBS_BASE, PEBS_ENABLE, PEBS_INDEX, PERF_CAPABILITIES};

/// IA32_PERF_CAPABILITIES, without the bits of PEBS: its kind and records, its output to Intel PT, and its timing.
pub const CAPABILITIES: Row = Row::new(
    &[PERF_CAPABILITIES..=PERF_CAPABILITIES],
    Read::Without(0x3f << 6 | 1 << 14 | 1 << 16 | 1 << 17),
    Write::Native,
);

/// The MSRs that enable PEBS or a part of it: IA32_PEBS_ENABLE and the configuration of each counter.
pub const ENABLE: Row = Row::new(
    &[
        PEBS_ENABLE..=PEBS_ENABLE,
        counter(GP0_CFG_C, 0),
        counter(GP0_CFG_C, 1),
        counter(GP0_CFG_C, 2),
        counter(GP0_CFG_C, 3),
        counter(GP0_CFG_C, 4),
        counter(GP0_CFG_C, 5),
        counter(GP0_CFG_C, 6),
        counter(GP0_CFG_C, 7),
        counter(GP0_CFG_C, 8),
        counter(GP0_CFG_C, 9),
        counter(FIXED0_CFG_C, 0),
        counter(FIXED0_CFG_C, 1),
        counter(FIXED0_CFG_C, 2),
        counter(FIXED0_CFG_C, 3),
        counter(FIXED0_CFG_C, 4),
        counter(FIXED0_CFG_C, 5),
        counter(FIXED0_CFG_C, 6),
    ],
    Read::Native,
    Write::Without(u64::MAX),
);

/// The address of the buffer for event records, and the index into it.
pub const BUFFER: Row = Row::new(&[PEBS_BASE..=PEBS_INDEX], Read::Refuse, Write::Refuse);

/// Returns the index of the configuration MSR of the counter `number`. `first` is the index for counter 0.
const fn counter(first: u32, number: u32) -> core::ops::RangeInclusive<u32> {
    let index = first + 4 * number;
    index..=index
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::msr::policy;
    use crate::vmx::msrs::MSRS;

    #[test]
    fn pebs_is_neither_offered_nor_enabled() {
        for index in [PEBS_ENABLE, 0x1903, 0x1927, 0x1983, 0x199b] {
            assert!(matches!(policy(MSRS, index), (Read::Native, Write::Without(u64::MAX))), "{index:#x}");
        }
        for index in [PEBS_BASE, PEBS_INDEX] {
            assert!(matches!(policy(MSRS, index), (Read::Refuse, Write::Refuse)), "{index:#x}");
        }
        assert!(matches!(policy(MSRS, PERF_CAPABILITIES).0, Read::Without(0x3_4fc0)));
        // The MSR with a counter's reload value does not enable PEBS.
        assert!(matches!(policy(MSRS, 0x1902), (Read::Native, Write::Native)));
    }
}
