//! The MSRs that Vidar filters on VT-x.
//!
//! | file | what it is for |
//! |---|---|
//! | [`feature_control`] | IA32_FEATURE_CONTROL: VMX and SMX look disabled by firmware. |
//! | [`misc_enable`] | IA32_MISC_ENABLE: PEBS is unavailable, and XD Bit Disable never reaches the CPU. |
//! | [`pebs`] | The MSRs that report PEBS or enable it. |

pub mod feature_control;
pub mod misc_enable;
pub mod pebs;

use crate::policy::msr::{COMMON, Read, Row, Write, efer, guard, microcode};
use crate::x86::msr;

/// All tables of MSRs that Vidar filters on VT-x.
pub const MSRS: &[&[Row]] = &[COMMON, OWN];

/// MSRs of VT-x, and of CPUs that have it.
const OWN: &[Row] = &[
    feature_control::ROW,
    microcode::INTEL,
    misc_enable::ROW,
    Row::new(&[msr::EFER..=msr::EFER], Read::Native, Write::HandledIfWatched(efer::write)),
    pebs::CAPABILITIES,
    pebs::ENABLE,
    pebs::BUFFER,
    ENCRYPTION,
    HIDDEN,
];

/// Total memory encryption, as if firmware had locked it: with bits of an address that select a key, memory would have
/// addresses that Vidar does not know. Intel SDM Vol. 4, 2.1 "Architectural MSRs".
const ENCRYPTION: Row = Row::new(&[msr::TME_ACTIVATE..=msr::TME_EXCLUDE_BASE], Read::Native, Write::Refuse);

/// MSRs of features that CPUID hides.
const HIDDEN: Row = Row::new(
    &[
        // VT-x itself.
        msr::SMM_MONITOR_CTL..=msr::SMM_MONITOR_CTL,
        msr::VMX_BASIC..=msr::VMX_EXIT_CTLS2,
        // USER_MSR, whose instructions would exit at CPL 3.
        msr::USER_MSR_CTL..=msr::USER_MSR_CTL,
        // FRED.
        msr::FRED_RSP0..=msr::FRED_CONFIG,
    ],
    Read::Refuse,
    Write::Refuse,
);

/// MSRs that the boot option `guard` guards. The table comes before the others.
pub const GUARDED: &[Row] =
    &[guard::EFER, guard::SYSCALL_TARGETS, guard::SYSCALL, guard::SYSENTER_CS, guard::SYSENTER_ADDRESSES];

/// MSRs that Vidar also refuses if a hypervisor is below it: those that the bitmap does not cover. On a bare machine
/// Vidar passes accesses to them on to the CPU, which raises #GP for MSRs that it lacks. A hypervisor may give them any
/// meaning, and a value may be an address that it writes to.
pub const NESTED: &[Row] =
    &[Row::new(&[0x2000..=0xbfff_ffff, 0xc000_2000..=0xffff_ffff], Read::Refuse, Write::Refuse)];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::msr::policy;
    use crate::vmx::msr_bitmap;

    #[test]
    fn the_guest_cannot_reach_msrs_of_hidden_features() {
        for index in (0x480..=0x493).chain(0x1cc..=0x1d4).chain([msr::SMM_MONITOR_CTL, msr::USER_MSR_CTL]) {
            assert!(matches!(policy(MSRS, index), (Read::Refuse, Write::Refuse)), "{index:#x}");
        }
    }

    #[test]
    fn the_guest_cannot_give_memory_other_addresses_by_its_encryption() {
        for index in 0x982..=0x984 {
            assert!(matches!(policy(MSRS, index), (Read::Native, Write::Refuse)), "{index:#x}");
        }
        assert!(matches!(policy(MSRS, 0x981), (Read::Native, Write::Native)), "what the CPU can do");
    }

    /// Vidar passes no MSR on that a hypervisor below could define, and the table adds none that the bitmap covers.
    #[test]
    fn under_another_hypervisor_nothing_unknown_is_passed_on() {
        let tables = [MSRS, &[NESTED]].concat();
        let covered = |index: u32| index < 0x2000 || (0xc000_0000..0xc000_2000).contains(&index);
        let edges = (0..32).flat_map(|bit| [(1 << bit) - 1, 1 << bit, (1 << bit) + 1, !(1 << bit)]);
        for index in edges.chain([0xbfff_ffff, 0xc000_0000, 0xc000_1fff, 0xc000_2000, 0xc001_0015]) {
            if covered(index) {
                assert!(!NESTED[0].contains(index), "{index:#x}");
            } else {
                assert!(matches!(policy(&tables, index), (Read::Refuse, Write::Refuse)), "{index:#x}");
            }
        }
        for watched in [false, true] {
            assert_eq!(msr_bitmap::derive(&tables, watched), msr_bitmap::derive(MSRS, watched));
        }
    }

    #[test]
    fn the_cpu_answers_for_the_guests_own_msrs() {
        assert!(matches!(policy(MSRS, msr::PAT), (Read::Native, Write::Native)), "between the MTRRs");
        assert!(matches!(policy(MSRS, msr::EFER), (Read::Native, Write::HandledIfWatched(_))));
        assert!(matches!(policy(MSRS, 0x2ff), (Read::Native, Write::Handled(_))));
    }
}
