//! The MSRs that say where memory is, and which of it is encrypted. By these the guest's CPU could take Vidar's memory away, give
//! it another type, or read it encrypted. So they stay as firmware has set them up. AMD APM Vol. 2, 7.9 "Memory-Mapped I/O".

use crate::policy::msr::{Read, Row, Write};
use crate::x86::msr::{
    IORR_BASE0, IORR_MASK1, RMP_BASE, RMP_END, SMM_BASE, SMM_MASK, SYSCFG, TOP_MEM, TOP_MEM2,
};

/// SYSCFG, without SME, SNP and what belongs to them, which CPUID hides.
pub const SYSTEM: Row = Row::new(&[SYSCFG..=SYSCFG], Read::Without(0xf << 23), Write::Keep);

/// The ranges of RAM and of devices.
pub const RANGES: Row =
    Row::new(&[IORR_BASE0..=IORR_MASK1, TOP_MEM..=TOP_MEM, TOP_MEM2..=TOP_MEM2], Read::Native, Write::Keep);

/// The memory of system-management mode, as if firmware had locked it. AMD APM Vol. 2, 10.2.5 "SMRAM Protected Areas".
pub const SMM: Row = Row::new(&[SMM_BASE..=SMM_MASK], Read::Native, Write::Refuse);

/// The table of encrypted guests' memory. CPUID hides SNP, to which it belongs.
pub const ENCRYPTED: Row = Row::new(&[RMP_BASE..=RMP_END], Read::Refuse, Write::Refuse);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::msr::policy;
    use crate::svm::msrs::MSRS;

    #[test]
    fn memory_stays_where_firmware_has_put_it() {
        for index in
            [0xc001_0010, 0xc001_0016, 0xc001_0017, 0xc001_0018, 0xc001_0019, 0xc001_001a, 0xc001_001d]
        {
            assert!(matches!(policy(MSRS, index).1, Write::Keep), "{index:#x}");
        }
        for index in 0xc001_0111..=0xc001_0113 {
            assert!(matches!(policy(MSRS, index).1, Write::Refuse), "{index:#x}");
        }
        assert!(matches!(policy(MSRS, 0xc001_0010).0, Read::Without(0x780_0000)));
        assert!(matches!(policy(MSRS, RMP_BASE), (Read::Refuse, Write::Refuse)));
    }
}
