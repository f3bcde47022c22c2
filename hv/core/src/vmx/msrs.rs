//! The MSRs that are not simply the guest's on VT-x.

use crate::policy::msr::{COMMON, Read, Row, Write};
use crate::x86::msr;

/// All tables that hold on VT-x.
pub const MSRS: &[&[Row]] = &[COMMON, OWN];

/// Those of VT-x and of CPUs that have it.
const OWN: &[Row] = &[
    Row::new(msr::FEATURE_CONTROL, msr::FEATURE_CONTROL, Read::FeatureControl, Write::Refuse),
    // The address is that of the data, after a header of 48 bytes. Intel SDM Vol. 3A, 10.11.1 "Microcode Update". Reading it
    // is #GP by itself.
    Row::new(msr::BIOS_UPDT_TRIG, msr::BIOS_UPDT_TRIG, Read::Native, Write::Microcode(48)),
    Row::new(msr::SMM_MONITOR_CTL, msr::SMM_MONITOR_CTL, Read::Refuse, Write::Refuse),
    Row::new(msr::MISC_ENABLE, msr::MISC_ENABLE, Read::MiscEnable, Write::MiscEnable),
    Row::new(msr::EFER, msr::EFER, Read::Native, Write::EferIfWatched),
    // With PEBS the CPU goes on to write event records after an exit, to the guest's linear address in Vidar's address
    // space. So it may not be enabled, and is not advertised: Intel SDM Vol. 3B, 20.8 "IA32_PERF_CAPABILITIES MSR
    // Enumeration".
    Row::new(msr::PERF_CAPABILITIES, msr::PERF_CAPABILITIES, Read::Without(PEBS_CAPABILITIES), Write::Native),
    pebs(msr::PEBS_ENABLE),
    // The same by a buffer's address and index, and by the configuration of each counter.
    Row::new(msr::PEBS_BASE, msr::PEBS_INDEX, Read::Refuse, Write::Refuse),
    pebs(msr::GP0_CFG_C),
    pebs(msr::GP0_CFG_C + 4),
    pebs(msr::GP0_CFG_C + 8),
    pebs(msr::GP0_CFG_C + 12),
    pebs(msr::GP0_CFG_C + 16),
    pebs(msr::GP0_CFG_C + 20),
    pebs(msr::GP0_CFG_C + 24),
    pebs(msr::GP0_CFG_C + 28),
    pebs(msr::GP0_CFG_C + 32),
    pebs(msr::GP0_CFG_C + 36),
    pebs(msr::FIXED0_CFG_C),
    pebs(msr::FIXED0_CFG_C + 4),
    pebs(msr::FIXED0_CFG_C + 8),
    pebs(msr::FIXED0_CFG_C + 12),
    pebs(msr::FIXED0_CFG_C + 16),
    pebs(msr::FIXED0_CFG_C + 20),
    pebs(msr::FIXED0_CFG_C + 24),
    Row::new(msr::VMX_BASIC, msr::VMX_EXIT_CTLS2, Read::Refuse, Write::Refuse),
    // Features that CPUID hides: USER_MSR, whose instructions would exit at CPL 3, and FRED.
    Row::new(msr::USER_MSR_CTL, msr::USER_MSR_CTL, Read::Refuse, Write::Refuse),
    Row::new(msr::FRED_RSP0, msr::FRED_CONFIG, Read::Refuse, Write::Refuse),
];

/// What is refused as well where a hypervisor is below Vidar: the MSRs that the bitmap does not cover. A bare CPU is asked
/// for them, and gives #GP for those that it lacks. A hypervisor may have given them any meaning, and the value may be an
/// address that it writes to.
pub const NESTED: &[Row] = &[
    Row::new(0x2000, 0xbfff_ffff, Read::Refuse, Write::Refuse),
    Row::new(0xc000_2000, 0xffff_ffff, Read::Refuse, Write::Refuse),
];

/// Bits of IA32_PERF_CAPABILITIES about PEBS: its kind and its records, its output to Intel PT, its timing.
const PEBS_CAPABILITIES: u64 = 0x3f << 6 | 1 << 14 | 1 << 16 | 1 << 17;

/// An MSR that enables PEBS, or a part of it.
const fn pebs(index: u32) -> Row {
    Row::new(index, index, Read::Native, Write::Without(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::msr::policy;
    use crate::vmx::msr_bitmap;

    #[test]
    fn what_the_guest_must_not_reach() {
        for index in (0x480..=0x493).chain(0x1cc..=0x1d4).chain([msr::SMM_MONITOR_CTL, msr::USER_MSR_CTL]) {
            assert_eq!(policy(MSRS, index), (Read::Refuse, Write::Refuse), "{index:#x}");
        }
    }

    /// What a hypervisor below could take as an address is not passed on, and what the bitmap covers stays as it is.
    #[test]
    fn under_another_hypervisor_nothing_unknown_is_passed_on() {
        let tables = [MSRS, &[NESTED]].concat();
        let covered = |index: u32| index < 0x2000 || (0xc000_0000..0xc000_2000).contains(&index);
        let edges = (0..32).flat_map(|bit| [(1 << bit) - 1, 1 << bit, (1 << bit) + 1, !(1 << bit)]);
        for index in edges.chain([0xbfff_ffff, 0xc000_0000, 0xc000_1fff, 0xc000_2000, 0xc001_0015]) {
            let expected = if covered(index) { policy(MSRS, index) } else { (Read::Refuse, Write::Refuse) };
            assert_eq!(policy(&tables, index), expected, "{index:#x}");
        }
        for watched in [false, true] {
            assert_eq!(msr_bitmap::derive(&tables, watched), msr_bitmap::derive(MSRS, watched));
        }
    }

    #[test]
    fn what_is_the_guests() {
        // The PAT lies between the MTRRs.
        assert_eq!(policy(MSRS, 0x277), (Read::Native, Write::Native));
        assert_eq!(policy(MSRS, msr::EFER), (Read::Native, Write::EferIfWatched));
        assert_eq!(policy(MSRS, 0x2ff).1, Write::Mtrr);
    }

    #[test]
    fn pebs_is_neither_offered_nor_enabled() {
        for index in [msr::PEBS_ENABLE, 0x1903, 0x1927, 0x1983, 0x199b] {
            assert_eq!(policy(MSRS, index), (Read::Native, Write::Without(u64::MAX)), "{index:#x}");
        }
        assert_eq!(policy(MSRS, msr::PERF_CAPABILITIES).0, Read::Without(0x3_4fc0));
        assert_eq!(
            policy(MSRS, 0x1902),
            (Read::Native, Write::Native),
            "how a counter is reloaded is no PEBS"
        );
    }
}
