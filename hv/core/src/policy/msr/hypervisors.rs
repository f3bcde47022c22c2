//! MSRs that hypervisors define. The guest gets #GP for them.
//!
//! They carry guest-physical addresses which a hypervisor below Vidar writes to, and it knows nothing of Vidar's memory. They
//! are refused even if the CPU names no hypervisor, since one can hide itself. No CPU with VT-x or AMD-V has an MSR at these
//! indices. Intel SDM Vol. 4, 2.1 "Architectural MSRs" reserves 40000000H to 400000FFH for this.

use super::row::{Read, Row, Write};

/// The row for the tables.
pub const ROW: Row = Row::new(
    &[
        // KVM's first clock: MSR_KVM_WALL_CLOCK and MSR_KVM_SYSTEM_TIME.
        0x11..=0x12,
        // Hyper-V's, and Xen's page of hypercalls.
        0x4000_0000..=0x4000_ffff,
        // KVM's.
        0x4b56_4d00..=0x4b56_4dff,
    ],
    Read::Refuse,
    Write::Refuse,
);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::msr::{COMMON, policy};

    #[test]
    fn msrs_of_hypervisors_are_refused() {
        for index in
            [0x11, 0x12, 0x4000_0000, 0x4000_0001, 0x4000_0200, 0x4000_ffff, 0x4b56_4d00, 0x4b56_4d07]
        {
            assert!(matches!(policy(&[COMMON], index), (Read::Refuse, Write::Refuse)), "{index:#x}");
        }
        assert!(matches!(policy(&[COMMON], 0x10), (Read::Native, Write::Native)));
    }
}
