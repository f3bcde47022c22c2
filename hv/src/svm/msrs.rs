//! The MSRs that are not simply the guest's on AMD-V.

use crate::arch::msr;
use crate::vmm::msr::{COMMON, Read, Row, Write};

/// All tables that hold on AMD-V.
pub const MSRS: &[&[Row]] = &[COMMON, OWN];

/// Those of AMD-V and of CPUs that have it. The CPU itself combines nested paging with the MTRRs, so those are not among
/// them.
const OWN: &[Row] = &[
    // SVME is on behind the guest's back.
    Row::new(msr::EFER, msr::EFER, Read::Efer, Write::Efer),
    // As on VT-x: an update is for whoever owns the CPU.
    Row::new(msr::PATCH_LOADER, msr::PATCH_LOADER, Read::Native, Write::Ignore),
    Row::new(msr::VM_CR, msr::VM_CR, Read::Refuse, Write::Refuse),
    Row::new(msr::VM_HSAVE_PA, msr::SVM_KEY, Read::Refuse, Write::Refuse),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vmm::msr::policy;

    #[test]
    fn what_the_guest_must_not_reach() {
        for index in [msr::VM_CR, msr::VM_HSAVE_PA, msr::SVM_KEY] {
            assert_eq!(policy(MSRS, index), (Read::Refuse, Write::Refuse), "{index:#x}");
        }
        assert_eq!(policy(MSRS, msr::EFER), (Read::Efer, Write::Efer));
        assert_eq!(policy(MSRS, 0x200), (Read::Native, Write::Native));
    }
}
