//! The MSRs that are not simply the guest's on AMD-V.

use crate::policy::msr::{COMMON, Read, Row, Write};
use crate::x86::msr;

/// All tables that hold on AMD-V.
pub const MSRS: &[&[Row]] = &[COMMON, OWN];

/// Those of AMD-V and of CPUs that have it.
const OWN: &[Row] = &[
    // SVME is on behind the guest's back.
    Row::new(msr::EFER, msr::EFER, Read::Efer, Write::Efer),
    // The address is that of the header.
    Row::new(msr::PATCH_LOADER, msr::PATCH_LOADER, Read::Native, Write::Microcode(0)),
    Row::new(msr::VM_CR, msr::VM_CR, Read::Refuse, Write::Refuse),
    Row::new(msr::VM_HSAVE_PA, msr::SVM_KEY, Read::Refuse, Write::Refuse),
    // It is 1 while Vidar has the CPU, and a CPU without AMD-V has none.
    Row::new(msr::TSC_RATIO, msr::TSC_RATIO, Read::Refuse, Write::Refuse),
    // By these the guest's CPU could take Vidar's memory away or give it another type, and read it encrypted. They are
    // firmware's to set up. AMD APM Vol. 2, 7.9 "Memory-Mapped I/O".
    Row::new(msr::SYSCFG, msr::SYSCFG, Read::Without(SYSCFG_ENCRYPTION), Write::Keep),
    Row::new(msr::IORR_BASE0, msr::IORR_MASK1, Read::Native, Write::Keep),
    Row::new(msr::TOP_MEM, msr::TOP_MEM, Read::Native, Write::Keep),
    Row::new(msr::TOP_MEM2, msr::TOP_MEM2, Read::Native, Write::Keep),
    Row::new(msr::MMIO_CFG_BASE, msr::MMIO_CFG_BASE, Read::Native, Write::ConfigurationBase),
    // As firmware locks them: AMD APM Vol. 2, 10.2.5 "SMRAM Protected Areas".
    Row::new(msr::SMM_BASE, msr::SMM_MASK, Read::Native, Write::Refuse),
    // There is no SNP in what the guest is told of the CPU.
    Row::new(msr::RMP_BASE, msr::RMP_END, Read::Refuse, Write::Refuse),
];

/// What is refused as well where a hypervisor is below Vidar: the MSRs that the permissions map does not cover. A bare CPU
/// is asked for them, and gives #GP for those that it lacks. A hypervisor may have given them any meaning, and the value
/// may be an address that it writes to. That of GHCB is one, so it is refused too.
pub const NESTED: &[Row] = &[
    Row::new(0x2000, 0xbfff_ffff, Read::Refuse, Write::Refuse),
    Row::new(0xc000_2000, 0xc000_ffff, Read::Refuse, Write::Refuse),
    Row::new(msr::GHCB, msr::GHCB, Read::Refuse, Write::Refuse),
    Row::new(0xc001_2000, 0xffff_ffff, Read::Refuse, Write::Refuse),
];

/// SYSCFG: SME, SNP and what belongs to it, which CPUID hides.
const SYSCFG_ENCRYPTION: u64 = 0xf << 23;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::msr::policy;

    #[test]
    fn what_the_guest_must_not_reach() {
        for index in [msr::VM_CR, msr::VM_HSAVE_PA, msr::SVM_KEY, msr::TSC_RATIO, msr::RMP_BASE] {
            assert_eq!(policy(MSRS, index), (Read::Refuse, Write::Refuse), "{index:#x}");
        }
        assert_eq!(policy(MSRS, msr::EFER), (Read::Efer, Write::Efer));
        assert_eq!(policy(MSRS, 0x200), (Read::Native, Write::Mtrr));
        assert_eq!(policy(MSRS, msr::PAT), (Read::Native, Write::Native), "between the MTRRs");
    }

    /// What a hypervisor below could take as an address is not passed on, and what the map covers stays as it is.
    #[test]
    fn under_another_hypervisor_nothing_unknown_is_passed_on() {
        let tables = [MSRS, &[NESTED]].concat();
        let firsts = [0, 0xc000_0000, 0xc001_0000u32];
        let covered = |index: u32| firsts.iter().any(|first| (*first..first + 0x2000).contains(&index));
        let edges = (0..32).flat_map(|bit| [(1 << bit) - 1, 1 << bit, (1 << bit) + 1, !(1 << bit)]);
        let inside =
            firsts.into_iter().flat_map(|first| [first, first + 0x1fff, first + 0x2000, first + 0x15]);
        for index in edges.chain(inside) {
            let expected = if covered(index) { policy(MSRS, index) } else { (Read::Refuse, Write::Refuse) };
            assert_eq!(policy(&tables, index), expected, "{index:#x}");
        }
        assert_eq!(policy(&tables, msr::GHCB), (Read::Refuse, Write::Refuse));
    }

    /// The MSRs that say where memory is, and which of it is encrypted.
    #[test]
    fn memory_stays_where_firmware_has_put_it() {
        for index in
            [0xc001_0010, 0xc001_0016, 0xc001_0017, 0xc001_0018, 0xc001_0019, 0xc001_001a, 0xc001_001d]
        {
            assert_eq!(policy(MSRS, index).1, Write::Keep, "{index:#x}");
        }
        for index in 0xc001_0111..=0xc001_0113 {
            assert_eq!(policy(MSRS, index).1, Write::Refuse, "{index:#x}");
        }
        assert_eq!(policy(MSRS, 0xc001_0010).0, Read::Without(0b1111 << 23));
        assert_eq!(policy(MSRS, 0xc001_0058), (Read::Native, Write::ConfigurationBase));
    }
}
