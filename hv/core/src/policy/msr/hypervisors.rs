//! MSRs that hypervisors define. The guest gets #GP for them.
//!
//! The guest could write addresses to these MSRs, and a hypervisor below Vidar would write to memory there. That
//! hypervisor does not know which memory is Vidar's. Vidar refuses these MSRs even if CPUID reports no hypervisor,
//! since a hypervisor can hide itself. No CPU with VT-x or AMD-V has an MSR at these indices. Intel SDM Vol. 4, 2.1
//! "Architectural MSRs" reserves 40000000H to 400000FFH for hypervisors.

use super::row::{Read, Row, Write};

/// The row for the tables.
pub const ROW: Row = Row::new(
    &[
        // The old clock of KVM: MSR_KVM_WALL_CLOCK and MSR_KVM_SYSTEM_TIME.
        0x11..=0x12,
        // The MSRs of Hyper-V, and Xen's MSR for the hypercall page.
        0x4000_0000..=0x4000_ffff,
        // The MSRs of KVM.
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
