//! The MSRs that decide which addresses are memory, and which memory is encrypted. With them the guest could replace
//! Vidar's memory by devices, change its memory type, or read it encrypted. So they keep the values that firmware has
//! set. AMD APM Vol. 2, 7.9 "Memory-Mapped I/O".

use crate::policy::msr::{Read, Row, Write};
use crate::x86::msr::{
    IORR_BASE0, IORR_MASK1, RMP_BASE, RMP_END, SMM_BASE, SMM_CTL, SMM_MASK, SYSCFG, TOP_MEM, TOP_MEM2,
};

/// SYSCFG, without the bits of SME and SNP, which CPUID hides.
pub const SYSTEM: Row = Row::new(&[SYSCFG..=SYSCFG], Read::Without(0xf << 23), Write::Keep);

/// The ranges of RAM and of devices.
pub const RANGES: Row =
    Row::new(&[IORR_BASE0..=IORR_MASK1, TOP_MEM..=TOP_MEM, TOP_MEM2..=TOP_MEM2], Read::Native, Write::Keep);

/// The memory of system-management mode, as if firmware had locked it. AMD APM Vol. 2, 10.2.5 "SMRAM Protected Areas".
pub const SMM: Row = Row::new(&[SMM_BASE..=SMM_MASK, SMM_CTL..=SMM_CTL], Read::Native, Write::Refuse);

/// The address of the reverse map table, a part of SNP, which CPUID hides.
pub const ENCRYPTED: Row = Row::new(&[RMP_BASE..=RMP_END], Read::Refuse, Write::Refuse);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::msr::policy;
    use crate::svm::msrs::MSRS;

    #[test]
    fn the_guest_cannot_change_what_is_memory() {
        for index in
            [0xc001_0010, 0xc001_0016, 0xc001_0017, 0xc001_0018, 0xc001_0019, 0xc001_001a, 0xc001_001d]
        {
            assert!(matches!(policy(MSRS, index).1, Write::Keep), "{index:#x}");
        }
        for index in [0xc001_0111, 0xc001_0112, 0xc001_0113, 0xc001_0116] {
            assert!(matches!(policy(MSRS, index).1, Write::Refuse), "{index:#x}");
        }
        assert!(matches!(policy(MSRS, 0xc001_0010).0, Read::Without(0x780_0000)));
        assert!(matches!(policy(MSRS, RMP_BASE), (Read::Refuse, Write::Refuse)));
    }
}
