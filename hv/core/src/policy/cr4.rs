//! The bits of CR4 that the guest may set: those of features that the guest's CPUID shows.
//!
//! Intel SDM Vol. 3A, 2.5 "Control Registers"; AMD APM Vol. 2, 3.1.3 "CR4 Register".

use super::cpuid::{AfterReset, Output, Policy, answer};
use crate::x86::cpuid::Leaf;

/// The number of a bit of CR4, and a bit of CPUID that reports the feature.
struct Row {
    cr4: u32,
    leaf: u32,
    subleaf: u32,
    output: Output,
    bit: u32,
}

const fn row(cr4: u32, leaf: u32, subleaf: u32, output: Output, bit: u32) -> Row {
    Row { cr4, leaf, subleaf, output, bit }
}

/// VME, PVI, TSD, DE, PSE, PAE, MCE, PGE, PCE, OSFXSR and OSXMMEXCPT, which every 64-bit CPU has.
const ALWAYS: u64 = 0x7ff;

/// The bits that depend on a feature. VMXE and SMXE are not among them, since CPUID hides their features.
const ROWS: &[Row] = &[
    row(11, 7, 0, Output::Ecx, 2),  // UMIP
    row(12, 7, 0, Output::Ecx, 16), // LA57
    row(16, 7, 0, Output::Ebx, 0),  // FSGSBASE
    row(17, 1, 0, Output::Ecx, 17), // PCIDE
    row(18, 1, 0, Output::Ecx, 26), // OSXSAVE
    row(19, 7, 0, Output::Ecx, 23), // KL
    row(20, 7, 0, Output::Ebx, 7),  // SMEP
    row(21, 7, 0, Output::Ebx, 20), // SMAP
    row(22, 7, 0, Output::Ecx, 3),  // PKE
    row(23, 7, 0, Output::Ecx, 7),  // CET: shadow stacks
    row(23, 7, 0, Output::Edx, 20), // CET: indirect-branch tracking
    row(24, 7, 0, Output::Ecx, 31), // PKS
    row(25, 7, 0, Output::Edx, 5),  // UINTR
    row(27, 7, 1, Output::Eax, 6),  // LASS
    row(28, 7, 1, Output::Eax, 26), // LAM_SUP
    row(32, 7, 1, Output::Eax, 17), // FRED
];

/// Returns the bits of CR4 that a guest under `policy` may set. `native` executes CPUID.
pub fn allowed(policy: &Policy, native: impl Fn(u32, u32) -> Leaf) -> u64 {
    let has = |row: &&Row| {
        let exists = native(0, 0).eax >= row.leaf;
        exists
            && answer(row.leaf, row.subleaf, policy, &AfterReset(&native)).get(row.output) >> row.bit & 1 == 1
    };
    ROWS.iter().filter(has).fold(ALWAYS, |bits, row| bits | 1 << row.cr4)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::control::{CR4_OSXSAVE, CR4_PKE, CR4_SMXE, CR4_VMXE};
    use crate::policy::features::Features;

    const POLICY: Policy = Policy { features: Features::empty(), hypervisor_bit: true, narrower: 0 };
    const LASS: u64 = 1 << 27;
    const FRED: u64 = 1 << 32;

    #[test]
    fn a_bit_is_allowed_if_cpuid_shows_its_feature() {
        let cpuid = |leaf, subleaf| match (leaf, subleaf) {
            (0, _) => Leaf { eax: 7, ..Leaf::default() },
            (1, _) => Leaf { ecx: 1 << 26, ..Leaf::default() },
            (7, 0) => Leaf { ecx: 1 << 3, ..Leaf::default() },
            (7, 1) => Leaf { eax: 1 << 6, ..Leaf::default() },
            _ => Leaf::default(),
        };
        assert_eq!(allowed(&POLICY, cpuid), ALWAYS | CR4_OSXSAVE | CR4_PKE | LASS);
    }

    #[test]
    fn bits_of_features_that_cpuid_hides_are_not_allowed() {
        let everything = |_, _| Leaf { eax: !0, ebx: !0, ecx: !0, edx: !0 };
        for features in [Features::empty(), Features::all()] {
            let bits = allowed(&Policy { features, ..POLICY }, everything);
            assert_eq!(bits & (FRED | CR4_VMXE | CR4_SMXE), 0);
            assert_eq!(bits & LASS, LASS);
        }
    }

    #[test]
    fn a_leaf_that_the_cpu_lacks_has_no_features() {
        // For a leaf that it lacks, a CPU of Intel returns its highest basic leaf.
        let old = |leaf, _| Leaf { eax: if leaf == 0 { 6 } else { !0 }, ebx: !0, ecx: !0, edx: !0 };
        assert_eq!(allowed(&POLICY, old), ALWAYS | 1 << 17 | CR4_OSXSAVE);
    }
}
