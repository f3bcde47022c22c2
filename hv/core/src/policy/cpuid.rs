//! The guest's CPUID: the CPU's own values, except for hypervisor leaves, some whole leaves, and the bits in the tables
//! of [`cpuid_bits`](crate::policy::cpuid_bits).

use super::cpuid_bits::{
    AMD_FEATURES, EXTENDED_FEATURES, EXTENDED_STATE, FEATURES, HYPERVISOR_BIT, KEY_LOCKER, PEBS_SUBLEAVES,
    PERFORMANCE, Rule,
};
use super::features::Features;
use super::known_features::KNOWN_FEATURES;
use super::xcr0;
use crate::mem::encryption;
pub use crate::policy::cpuid_bits::Output;
use crate::x86::cpuid::Leaf;

/// The settings that decide, besides the CPU, about the guest's CPUID.
#[derive(Debug, Clone, Copy)]
pub struct Policy {
    /// The features that depend on the extension and that the guest can use.
    pub features: Features,
    /// True if CPUID reports Vidar to the guest: by the hypervisor bit and by Vidar's own leaves.
    pub hypervisor_bit: bool,
    /// The number of bits by which physical addresses are narrower than CPUID reports, because of a feature that the
    /// guest does not see.
    pub narrower: u32,
}

/// What the guest's CPUID depends on besides the policy: the CPU, and the state that the guest has given it.
pub trait Context {
    /// Executes CPUID.
    fn native(&self, leaf: u32, subleaf: u32) -> Leaf;

    /// Returns the guest's CR4.
    fn cr4(&self) -> u64;

    /// Returns true unless the guest has disabled no-execute pages in IA32_MISC_ENABLE.
    fn no_execute(&self) -> bool;
}

/// A CPU that has just been reset: CR4 is 0, and no-execute pages are enabled. The function executes CPUID.
pub struct AfterReset<F>(pub F);

impl<F: Fn(u32, u32) -> Leaf> Context for AfterReset<F> {
    fn native(&self, leaf: u32, subleaf: u32) -> Leaf {
        (self.0)(leaf, subleaf)
    }

    fn cr4(&self) -> u64 {
        0
    }

    fn no_execute(&self) -> bool {
        true
    }
}

/// Leaf 80000000H: EAX is the highest extended leaf.
const EXTENDED_LEAVES: u32 = 0x8000_0000;

/// Leaf 8000000AH: the features of SVM. A CPU that has the leaf but not SVM returns zeros.
const SVM_LEAF: u32 = 0x8000_000a;

/// Leaf 8000001FH: memory encryption and encrypted guests. It is hidden, since Vidar does not handle the encryption bit
/// of an address when it reads the guest's page tables.
const ENCRYPTION_LEAF: u32 = encryption::AMD_LEAF;

/// Leaf 14H: the capabilities of Intel PT.
const INTEL_PT_LEAF: u32 = 0x14;

/// The leaves that are reserved for hypervisors. No CPU has them.
const HYPERVISOR_LEAVES: core::ops::RangeInclusive<u32> = 0x4000_0000..=0x4fff_ffff;

/// A leaf that neither a CPU nor a hypervisor has. The CPU returns the same for it as for every leaf that it lacks.
const NO_LEAF: u32 = *HYPERVISOR_LEAVES.start() - 1;

/// Returns what CPUID returns to the guest for `leaf` and `subleaf`.
#[inline(always)]
pub fn answer(leaf: u32, subleaf: u32, policy: &Policy, context: &impl Context) -> Leaf {
    let native = |leaf, subleaf| context.native(leaf, subleaf);
    let leaf = match leaf {
        _ if !HYPERVISOR_LEAVES.contains(&leaf) => leaf,
        _ if policy.hypervisor_bit => return hypervisor_leaf(leaf),
        // The guest never sees the leaves of a hypervisor below Vidar. Their interfaces take guest-physical addresses,
        // to which that hypervisor would write past Vidar's second stage. So it looks like a hypervisor without a name.
        _ if native(1, 0).ecx & 1 << HYPERVISOR_BIT != 0 => return Leaf::default(),
        // A bare machine lacks these leaves. For a leaf that they lack, Intel's CPUs return their highest basic leaf,
        // and AMD's CPUs return zeros. Intel SDM Vol. 2A, 3.3 "CPUID-CPU Identification".
        _ => NO_LEAF,
    };
    let table = match leaf {
        1 => FEATURES,
        7 => EXTENDED_FEATURES,
        0xd => EXTENDED_STATE,
        0x19 => KEY_LOCKER,
        // A CPU without this leaf returns another one, which must not be changed.
        0x23 if native(0, 0).eax < leaf => return native(leaf, subleaf),
        0x23 if PEBS_SUBLEAVES.contains(&subleaf) => return Leaf::default(),
        0x23 => PERFORMANCE,
        0x8000_0001 => AMD_FEATURES,
        0x8000_0008 => return sizes(native(leaf, subleaf), policy.narrower),
        // A CPU without these leaves, such as any of Intel, returns the same as for every leaf that it lacks.
        SVM_LEAF | ENCRYPTION_LEAF if native(EXTENDED_LEAVES, 0).eax >= leaf => return Leaf::default(),
        INTEL_PT_LEAF if !policy.features.contains(Features::INTEL_PT) => return Leaf::default(),
        _ => return native(leaf, subleaf),
    };
    let Leaf { eax, ebx, ecx, edx } = native(leaf, subleaf);
    // In the order of `Output`, so that no row needs a pointer to its register.
    let mut outputs = [eax, ebx, ecx, edx];
    for row in table.iter().filter(|row| row.subleaf.is_none_or(|wanted| wanted == subleaf)) {
        let output = &mut outputs[row.output as usize];
        let mask = 1 << row.bit;
        let set = match row.rule {
            Rule::Hide => false,
            // If the CPU lacks the feature, the bit of CR4 is reserved and thus 0.
            Rule::Follow(bit) => context.cr4() & bit != 0,
            Rule::Needs(feature) => *output & mask != 0 && policy.features.contains(feature),
            Rule::NoExecute => *output & mask != 0 && context.no_execute(),
            Rule::Hypervisor => policy.hypervisor_bit || *output & mask != 0,
        };
        *output = if set { *output | mask } else { *output & !mask };
    }
    let [eax, ebx, ecx, edx] = outputs;
    let mut result = Leaf { eax, ebx, ecx, edx };
    if leaf == 7
        && !policy.features.contains(Features::UNKNOWN)
        && let Some(known) = KNOWN_FEATURES.get(subleaf as usize)
    {
        result.eax &= known.eax;
        result.ebx &= known.ebx;
        result.ecx &= known.ecx;
        result.edx &= known.edx;
    }
    if (leaf, subleaf) == (0xd, xcr0::APX) {
        return Leaf::default();
    }
    if (leaf, subleaf) == (0xd, 1) && !policy.features.contains(Features::XSAVES) {
        // ECX and EDX are the bits that can be set in IA32_XSS.
        (result.ecx, result.edx) = (0, 0);
    }
    result
}

/// Returns leaf 80000008H for the guest, where `native` is that of the CPU. Physical addresses are narrower by
/// `narrower` bits. INVLPGB and TLBSYNC are hidden: a guest can execute them only if its hypervisor enables them.
const fn sizes(native: Leaf, narrower: u32) -> Leaf {
    const WIDTH: u32 = 0xff;
    let width = (native.eax & WIDTH).saturating_sub(narrower);
    Leaf { eax: native.eax & !WIDTH | width, ebx: native.ebx & !(1 << 3), ..native }
}

/// Returns one of Vidar's own leaves, or zeros for a hypervisor leaf that Vidar does not have.
fn hypervisor_leaf(leaf: u32) -> Leaf {
    let [ebx, ecx, edx] = const {
        let s = vidar_abi::SIGNATURE;
        [
            u32::from_le_bytes([s[0], s[1], s[2], s[3]]),
            u32::from_le_bytes([s[4], s[5], s[6], s[7]]),
            u32::from_le_bytes([s[8], s[9], s[10], s[11]]),
        ]
    };
    match leaf - vidar_abi::SIGNATURE_LEAF {
        0 => Leaf { eax: vidar_abi::SIGNATURE_LEAF + 1, ebx, ecx, edx },
        1 => Leaf { eax: vidar_abi::VERSION.to_raw(), ..Leaf::default() },
        _ => Leaf::default(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::policy::control::{CR4_OSXSAVE, CR4_PKE};

    const ONES: Leaf = Leaf { eax: !0, ebx: !0, ecx: !0, edx: !0 };
    const ALL: Policy = Policy { features: Features::all(), hypervisor_bit: true, narrower: 0 };

    /// A CPU whose CPUID is the same for all leaves, with the state of its guest.
    struct Fake {
        native: Leaf,
        cr4: u64,
        no_execute: bool,
    }

    impl Context for Fake {
        fn native(&self, _: u32, _: u32) -> Leaf {
            self.native
        }

        fn cr4(&self) -> u64 {
            self.cr4
        }

        fn no_execute(&self) -> bool {
            self.no_execute
        }
    }

    fn changed(leaf: u32, subleaf: u32, policy: &Policy, native: Leaf, cr4: u64) -> [u32; 4] {
        let got = answer(leaf, subleaf, policy, &Fake { native, cr4, no_execute: true });
        [got.eax ^ native.eax, got.ebx ^ native.ebx, got.ecx ^ native.ecx, got.edx ^ native.edx]
    }

    #[test]
    fn virtualization_is_hidden() {
        assert_eq!(changed(1, 0, &ALL, ONES, CR4_OSXSAVE), [0, 0, 1 << 5 | 1 << 6, 0]);
        assert_eq!(changed(0x8000_0001, 0, &ALL, ONES, 0), [0, 0, 1 << 2 | 1 << 12, 0]);
        for leaf in [SVM_LEAF, ENCRYPTION_LEAF] {
            assert_eq!(answer(leaf, 0, &ALL, &AfterReset(|_, _| ONES)), Leaf::default());
        }
        let intel = |leaf, _| match leaf {
            EXTENDED_LEAVES => Leaf { eax: 0x8000_0008, ..Leaf::default() },
            _ => ONES,
        };
        for leaf in [SVM_LEAF, ENCRYPTION_LEAF] {
            assert_eq!(answer(leaf, 0, &ALL, &AfterReset(intel)), ONES, "the CPU lacks the leaf");
        }
    }

    #[test]
    fn invlpgb_is_hidden_and_physical_addresses_are_narrower() {
        let native = Leaf { eax: 0x3930, ebx: !0, ecx: 0x500f, edx: 1 };
        let answered = |policy: &Policy| answer(0x8000_0008, 0, policy, &AfterReset(|_, _| native));
        assert_eq!(answered(&ALL), Leaf { ebx: !(1 << 3), ..native }, "INVLPGB");
        let narrower = Policy { narrower: 5, ..ALL };
        assert_eq!(answered(&narrower), Leaf { eax: 0x392b, ebx: !(1 << 3), ..native });
    }

    #[test]
    fn bits_follow_the_guests_cr4() {
        assert_eq!(changed(1, 0, &ALL, ONES, 0)[2] & 1 << 27, 1 << 27);
        assert_eq!(changed(7, 0, &ALL, ONES, CR4_PKE), [0; 4]);
        assert_eq!(changed(7, 0, &ALL, ONES, 0), [0, 0, 1 << 4, 0]);
        assert_eq!(changed(0x19, 0, &ALL, ONES, 0), [0, 1, 0, 0]);
        assert_eq!(changed(0x8000_0008, 0, &ALL, ONES, 0), [0, 1 << 3, 0, 0]);
    }

    #[test]
    fn features_without_their_control_are_hidden() {
        let none = Policy { features: Features::empty(), hypervisor_bit: true, narrower: 0 };
        let unknown = [0, 0, 1 << 15 | 1 << 26, 0x0022_10c1];
        let needed = [0, 1 << 10 | 1 << 25, 1 << 5 | 1 << 22, 1 << 18];
        let both = std::array::from_fn(|output| unknown[output] | needed[output]);
        assert_eq!(changed(7, 0, &none, ONES, CR4_PKE), both);
        let edx = 1 << 15 | 1 << 18 | 1 << 21;
        assert_eq!(changed(7, 1, &ALL, ONES, CR4_PKE), [1 << 17 | 1 << 20 | 1 << 27, 0, 0, edx]);
        assert_eq!(changed(0xd, 1, &none, ONES, 0), [1 << 3, 0, !0, !0]);
        assert_eq!(changed(0xd, 1, &ALL, ONES, 0), [0; 4]);
        assert_eq!(answer(0x14, 0, &none, &AfterReset(|_, _| ONES)), Leaf::default());
        assert_eq!(changed(0xd, 0, &none, ONES, 0), [1 << 19, 0, 0, 0]);
        assert_eq!(answer(0xd, 19, &ALL, &AfterReset(|_, _| ONES)), Leaf::default());
        assert_eq!(
            changed(0x8000_0001, 0, &none, Leaf::default(), 0),
            [0; 4],
            "the CPU has none of the features"
        );
    }

    const SILENT: Policy = Policy { hypervisor_bit: false, ..ALL };

    /// Returns the signature in a hypervisor's first leaf.
    fn signature(leaf: Leaf) -> Vec<u8> {
        [leaf.ebx, leaf.ecx, leaf.edx].map(u32::to_le_bytes).concat()
    }

    #[test]
    fn with_the_hypervisor_bit_the_guest_sees_vidars_leaves() {
        let first = answer(0x4000_0000, 0, &ALL, &AfterReset(|_, _| ONES));
        assert_eq!((first.eax, signature(first)), (0x4000_0001, vidar_abi::SIGNATURE.to_vec()));
        assert_eq!(changed(1, 0, &ALL, Leaf::default(), 0), [0, 0, 1 << 31, 0]);
    }

    #[test]
    fn on_a_bare_machine_without_the_hypervisor_bit_cpuid_is_the_cpus() {
        assert_eq!(changed(1, 0, &SILENT, Leaf::default(), 0), [0; 4]);
        // CPUs differ in what they return for a leaf that they lack. This one returns the leaf's number.
        let native = |leaf, _| Leaf { ebx: if leaf == 1 { 0 } else { leaf }, ..Leaf::default() };
        for leaf in [0x4000_0000, 0x4000_0001, 0x4000_0100, 0x4fff_ffff] {
            assert_eq!(answer(leaf, 0, &SILENT, &AfterReset(native)).ebx, 0x3fff_ffff, "{leaf:#x}");
        }
    }

    #[test]
    fn under_another_hypervisor_its_bit_is_shown_and_its_leaves_are_hidden() {
        assert_eq!(changed(1, 0, &SILENT, ONES, CR4_OSXSAVE), changed(1, 0, &ALL, ONES, CR4_OSXSAVE));
        for leaf in [0x4000_0000, 0x4000_0001, 0x4000_0100, 0x4fff_ffff] {
            assert_eq!(answer(leaf, 0, &SILENT, &AfterReset(|_, _| ONES)), Leaf::default(), "{leaf:#x}");
            assert_ne!(answer(leaf, 0, &ALL, &AfterReset(|_, _| ONES)), ONES, "{leaf:#x}");
        }
    }

    #[test]
    fn without_unknown_features_the_guest_sees_known_features_alone() {
        let intel = Policy {
            features: Features::all().difference(Features::UNKNOWN),
            hypervisor_bit: true,
            narrower: 0,
        };
        let shown =
            |subleaf| answer(7, subleaf, &intel, &Fake { native: ONES, cr4: CR4_PKE, no_execute: true });
        // Vidar decodes MSR instructions with an immediate, and does not know SIPI64, the user timer and others.
        assert_eq!((shown(1).ecx, shown(1).ebx, shown(1).edx & 1 << 13), (1 << 5, 0b1001, 0));
        assert_eq!(shown(0).edx & 1 << 21, 0);
        assert_eq!(shown(2), ONES);
        // Known features are shown: all of EBX; UMIP, CET and LA57; LASS; AVX10.
        let known = 1 << 2 | 1 << 7 | 1 << 16;
        assert_eq!((shown(0).ebx, shown(0).ecx & known), (!0, known));
        assert_eq!((shown(1).eax & 1 << 6, shown(1).edx & 1 << 19), (1 << 6, 1 << 19));
    }

    #[test]
    fn nx_is_hidden_while_the_guest_has_disabled_it() {
        let disabled = answer(0x8000_0001, 0, &ALL, &Fake { native: ONES, cr4: 0, no_execute: false });
        assert_eq!(disabled.edx, !(1 << 20));
        assert_eq!(changed(0x8000_0001, 0, &ALL, ONES, 0)[3], 0);
    }

    #[test]
    fn pebs_is_not_advertised() {
        assert_eq!(changed(0x23, 0, &ALL, ONES, 0), [1 << 4 | 1 << 5, 0, 0, 0]);
        for subleaf in PEBS_SUBLEAVES {
            assert_eq!(answer(0x23, subleaf, &ALL, &AfterReset(|_, _| ONES)), Leaf::default());
        }
        assert_eq!(changed(0x23, 1, &ALL, ONES, 0), [0; 4]);
        let old = Leaf { eax: 0x16, ..ONES };
        assert_eq!(changed(0x23, 4, &ALL, old, 0), [0; 4], "the CPU lacks the leaf and returns another");
    }

    proptest! {
        #[test]
        fn all_other_leaves_are_those_of_the_cpu(leaf in any::<u32>(), subleaf in any::<u32>(), seed in any::<u32>()) {
            let special =
                [1, 7, 0xd, 0x19, 0x23, 0x8000_0001, 0x8000_0008, SVM_LEAF, ENCRYPTION_LEAF, INTEL_PT_LEAF];
            prop_assume!(!special.contains(&leaf) && !HYPERVISOR_LEAVES.contains(&leaf));
            let native = |l: u32, s: u32| Leaf { eax: l ^ seed, ebx: s ^ seed, ecx: l, edx: s };
            prop_assert_eq!(answer(leaf, subleaf, &ALL, &AfterReset(native)), native(leaf, subleaf));
        }
    }
}
