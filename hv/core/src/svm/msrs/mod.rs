//! The MSRs that Vidar filters on AMD-V.
//!
//! | file | what it is for |
//! |---|---|
//! | [`memory`] | The MSRs that decide which addresses are memory, and which memory is encrypted. |
//! | [`mmio_config`] | MMIO_CFG_BASE: the configuration space of PCI stays off Vidar's memory. |

pub mod memory;
pub mod mmio_config;

use crate::policy::msr::{COMMON, Read, Row, Write, efer, guard, microcode};
use crate::x86::msr;

/// All tables of MSRs that Vidar filters on AMD-V.
pub const MSRS: &[&[Row]] = &[COMMON, OWN];

/// MSRs of AMD-V, and of CPUs that have it.
const OWN: &[Row] = &[
    // SVME is set while the guest runs, and the guest does not see it.
    Row::new(&[msr::EFER..=msr::EFER], Read::Handled(efer::read), Write::Handled(efer::write)),
    microcode::AMD,
    HIDDEN,
    memory::SYSTEM,
    memory::RANGES,
    memory::SMM,
    memory::ENCRYPTED,
    mmio_config::ROW,
];

/// MSRs of AMD-V itself, which CPUID hides.
const HIDDEN: Row = Row::new(
    &[
        msr::VM_CR..=msr::VM_CR,
        msr::VM_HSAVE_PA..=msr::SVM_KEY,
        // The ratio is 1 while Vidar runs.
        msr::TSC_RATIO..=msr::TSC_RATIO,
    ],
    Read::Refuse,
    Write::Refuse,
);

/// MSRs that the boot option `guard` guards, besides EFER, whose writes exit anyway.
pub const GUARDED: &[Row] = &[guard::SYSCALL_TARGETS, guard::SYSCALL, guard::SYSENTER_OF_AMD];

/// MSRs that Vidar also refuses if a hypervisor is below it: those that the permissions map does not cover, and GHCB.
/// On a bare machine Vidar passes accesses to them on to the CPU, which raises #GP for MSRs that it lacks. A hypervisor
/// may give them any meaning, and a value may be an address that it writes to, as with GHCB.
pub const NESTED: &[Row] = &[Row::new(
    &[0x2000..=0xbfff_ffff, 0xc000_2000..=0xc000_ffff, msr::GHCB..=msr::GHCB, 0xc001_2000..=0xffff_ffff],
    Read::Refuse,
    Write::Refuse,
)];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::msr::policy;

    #[test]
    fn the_guest_cannot_reach_msrs_of_hidden_features() {
        for index in [msr::VM_CR, msr::VM_HSAVE_PA, msr::SVM_KEY, msr::TSC_RATIO, msr::RMP_BASE] {
            assert!(matches!(policy(MSRS, index), (Read::Refuse, Write::Refuse)), "{index:#x}");
        }
        assert!(matches!(policy(MSRS, msr::EFER), (Read::Handled(_), Write::Handled(_))));
        assert!(matches!(policy(MSRS, 0x200), (Read::Native, Write::Handled(_))));
        assert!(matches!(policy(MSRS, msr::PAT), (Read::Native, Write::Native)), "between the MTRRs");
    }

    /// Vidar passes no MSR on that a hypervisor below could define, and the table adds none that the map covers but
    /// GHCB.
    #[test]
    fn under_another_hypervisor_nothing_unknown_is_passed_on() {
        let tables = [MSRS, &[NESTED]].concat();
        let firsts = [0, 0xc000_0000, 0xc001_0000u32];
        let covered = |index: u32| firsts.iter().any(|first| (*first..first + 0x2000).contains(&index));
        let edges = (0..32).flat_map(|bit| [(1 << bit) - 1, 1 << bit, (1 << bit) + 1, !(1 << bit)]);
        let inside =
            firsts.into_iter().flat_map(|first| [first, first + 0x1fff, first + 0x2000, first + 0x15]);
        for index in edges.chain(inside) {
            if covered(index) {
                assert!(!NESTED[0].contains(index), "{index:#x}");
            } else {
                assert!(matches!(policy(&tables, index), (Read::Refuse, Write::Refuse)), "{index:#x}");
            }
        }
        assert!(matches!(policy(&tables, msr::GHCB), (Read::Refuse, Write::Refuse)));
    }
}
