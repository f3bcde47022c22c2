//! The capabilities of the CPU's VT-x, and the controls that Vidar chooses from them. Some are required, others are
//! used if present.
//!
//! The capability MSRs are in Intel SDM Vol. 3D, Appendix A "VMX Capability Reporting Facility".

use alloc::vec::Vec;

use super::controls::{entry, exit, pin, primary, secondary};
use crate::mem::addr::PageSize;
use crate::policy::cpuid::Policy;
use crate::policy::cr4;
use crate::policy::features::Features;
use crate::x86::cpuid::Leaf;

/// The values of the capability MSRs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RawCapabilities {
    /// IA32_VMX_BASIC.
    pub basic: u64,
    /// IA32_VMX_TRUE_PINBASED_CTLS.
    pub pin: u64,
    /// IA32_VMX_TRUE_PROCBASED_CTLS.
    pub primary: u64,
    /// IA32_VMX_TRUE_EXIT_CTLS.
    pub exit: u64,
    /// IA32_VMX_TRUE_ENTRY_CTLS.
    pub entry: u64,
    /// IA32_VMX_PROCBASED_CTLS2.
    pub secondary: u64,
    /// IA32_VMX_EPT_VPID_CAP.
    pub ept_vpid: u64,
    /// IA32_VMX_MISC.
    pub misc: u64,
    /// IA32_VMX_CR0_FIXED0 and FIXED1.
    pub cr0_fixed: [u64; 2],
    /// IA32_VMX_CR4_FIXED0 and FIXED1.
    pub cr4_fixed: [u64; 2],
}

/// IA32_VMX_BASIC: the TRUE control MSRs exist.
const BASIC_TRUE_CONTROLS: u64 = 1 << 55;

/// The controls by which exits clear or replace a part of the guest's state and entries load it again: exit controls,
/// and entry controls. Vidar sets all controls of a row or none, since entries must load what exits clear. So the CPU
/// does not count, trace or record for the guest what Vidar does.
const PUT_AWAY: [(u32, u32); 5] = [
    (exit::LOAD_CET, entry::LOAD_CET),
    (exit::LOAD_PERF_GLOBAL | exit::SAVE_PERF_GLOBAL, entry::LOAD_PERF_GLOBAL),
    (exit::CLEAR_RTIT, entry::LOAD_RTIT),
    (exit::CLEAR_LBR, entry::LOAD_LBR),
    (exit::CLEAR_BNDCFGS, entry::LOAD_BNDCFGS),
];

/// All exit controls and all entry controls of [`PUT_AWAY`].
const OPTIONAL: (u32, u32) = {
    let (mut all, mut index) = ((0, 0), 0);
    while index < PUT_AWAY.len() {
        all = (all.0 | PUT_AWAY[index].0, all.1 | PUT_AWAY[index].1);
        index += 1;
    }
    all
};

/// Bits of IA32_VMX_EPT_VPID_CAP.
mod ept_vpid {
    pub const WALK_LENGTH_4: u64 = 1 << 6;
    pub const WRITE_BACK: u64 = 1 << 14;
    pub const PAGES_2M: u64 = 1 << 16;
    pub const PAGES_1G: u64 = 1 << 17;
    pub const INVEPT_ALL: u64 = 1 << 20 | 1 << 26;
    pub const INVVPID_SINGLE: u64 = 1 << 32 | 1 << 41;
}

/// IA32_VMX_MISC: the rate of the preemption timer, bits 4:0.
const MISC_TIMER_RATE: u64 = 0x1f;
/// IA32_VMX_MISC: VM exits store EFER.LMA into "IA-32e mode guest".
const MISC_STORES_LMA: u64 = 1 << 5;
/// IA32_VMX_MISC: the activity state wait-for-SIPI is supported.
const MISC_WAIT_FOR_SIPI: u64 = 1 << 8;
/// IA32_VMX_MISC: Intel PT can be used in VMX operation.
const MISC_INTEL_PT: u64 = 1 << 14;

/// CR0.PE and CR0.PG, which an unrestricted guest may clear.
const UNRESTRICTED_CR0: u64 = 1 << 31 | 1;

/// Proof that the CPU has the activity state wait-for-SIPI.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WaitForSipi(());

/// The controls that Vidar has chosen, and what else it uses of the CPU's VT-x.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capabilities {
    /// The revision identifier of the VMXON region and the VMCS.
    pub revision: u32,
    /// Pin-based controls.
    pub pin: u32,
    /// Primary processor-based controls.
    pub primary: u32,
    /// Secondary processor-based controls.
    pub secondary: u32,
    /// VM-exit controls.
    pub exit: u32,
    /// VM-entry controls, except "IA-32e mode guest".
    pub entry: u32,
    /// The number of the bit of the TSC at whose changes the preemption timer counts down by 1.
    pub timer_rate: u32,
    /// Given if the guest can be in the activity state wait-for-SIPI.
    pub wait_for_sipi: Option<WaitForSipi>,
    /// The largest page that EPT can map.
    pub largest_page: PageSize,
    /// Bits of CR0 that must be 1 in the guest.
    pub cr0_forced: u64,
    /// Bits of CR0 that must be 0 in the guest.
    pub cr0_forbidden: u64,
    /// Bits of CR4 that the guest may set.
    pub cr4_allowed: u64,
    /// Features that depend on controls and that the guest can use.
    pub features: Features,
}

impl Capabilities {
    /// Returns the names and values of what must be the same on all CPUs of a machine. It leaves out the controls of
    /// `PUT_AWAY`: each CPU uses those that it has, and the cores of a hybrid CPU may differ in them.
    pub const fn fields(&self) -> [(&'static str, u64); 13] {
        let Self {
            revision,
            pin,
            primary,
            secondary,
            exit,
            entry,
            timer_rate,
            wait_for_sipi,
            largest_page,
            cr0_forced,
            cr0_forbidden,
            cr4_allowed,
            features,
        } = *self;
        [
            ("the VMCS revision", revision as u64),
            ("the set of pin-based controls", pin as u64),
            ("the set of primary controls", primary as u64),
            ("the set of secondary controls", secondary as u64),
            ("the set of VM-exit controls", (exit & !OPTIONAL.0) as u64),
            ("the set of VM-entry controls", (entry & !OPTIONAL.1) as u64),
            ("the rate of the preemption timer", timer_rate as u64),
            ("wait-for-SIPI", wait_for_sipi.is_some() as u64),
            ("the largest EPT page", largest_page.bytes()),
            ("the set of bits that CR0 must have", cr0_forced),
            ("the set of bits that CR0 must lack", cr0_forbidden),
            ("the set of bits that CR4 may have", cr4_allowed),
            ("the set of usable features", features.bits() as u64),
        ]
    }

    /// Returns true if any of the secondary controls in `control` is set.
    pub const fn has(&self, control: u32) -> bool {
        self.secondary & control != 0
    }

    /// Chooses the controls: those that Vidar requires, those that it uses if present, and those that the CPU forces to
    /// 1.
    ///
    /// # Errors
    /// Returns the names of all required capabilities that the CPU lacks.
    pub fn choose(raw: &RawCapabilities) -> Result<Self, Vec<&'static str>> {
        let mut missing = Vec::new();
        let mut require = |present: bool, name| {
            if !present {
                missing.push(name);
            }
        };
        // Without the TRUE control MSRs, "CR3-load exiting" and "CR3-store exiting" cannot be cleared.
        require(raw.basic & BASIC_TRUE_CONTROLS != 0, "TRUE control MSRs");
        require(allows(raw.pin, pin::PREEMPTION_TIMER), "preemption timer");
        require(allows(raw.pin, pin::NMI_EXITING | pin::VIRTUAL_NMIS), "virtual NMIs");
        for (control, name) in
            [(primary::MSR_BITMAPS, "MSR bitmaps"), (primary::SECONDARY, "secondary controls")]
        {
            require(allows(raw.primary, control), name);
        }
        for (control, name) in
            [(secondary::EPT, "EPT"), (secondary::UNRESTRICTED_GUEST, "unrestricted guest")]
        {
            require(allows(raw.secondary, control), name);
        }
        for (bit, name) in [
            (ept_vpid::PAGES_2M, "EPT pages of 2 MiB"),
            (ept_vpid::WALK_LENGTH_4, "EPT of four levels"),
            (ept_vpid::WRITE_BACK, "write-back EPT tables"),
            (ept_vpid::INVEPT_ALL, "INVEPT of all contexts"),
        ] {
            require(raw.ept_vpid & bit == bit, name);
        }
        let exit_required = exit::SAVE_DEBUG
            | exit::HOST_64_BIT
            | exit::SAVE_PAT
            | exit::LOAD_PAT
            | exit::SAVE_EFER
            | exit::LOAD_EFER;
        require(allows(raw.exit, exit::SAVE_PAT | exit::LOAD_PAT), "PAT switching at exits");
        require(allows(raw.exit, exit::SAVE_EFER | exit::LOAD_EFER), "EFER switching at exits");
        require(allows(raw.exit, exit::HOST_64_BIT), "a 64-bit host");
        let entry_required = entry::LOAD_DEBUG | entry::LOAD_PAT | entry::LOAD_EFER;
        require(allows(raw.entry, entry::LOAD_PAT), "PAT loading at entries");
        require(allows(raw.entry, entry::LOAD_EFER), "EFER loading at entries");
        require(raw.misc & MISC_STORES_LMA != 0, "storing of EFER.LMA at exits");
        if !missing.is_empty() {
            return Err(missing);
        }

        let mut optional = secondary::RDTSCP
            | secondary::INVPCID
            | secondary::XSAVES
            | secondary::WAITPKG
            | secondary::PCONFIG
            | secondary::CONCEAL_FROM_PT;
        if raw.ept_vpid & ept_vpid::INVVPID_SINGLE == ept_vpid::INVVPID_SINGLE {
            optional |= secondary::VPID;
        }
        let second = granted(raw.secondary, secondary::EPT | secondary::UNRESTRICTED_GUEST, optional);
        let (mut exits, mut entries) = (exit::CONCEAL_FROM_PT, entry::CONCEAL_FROM_PT);
        for (at_exit, at_entry) in PUT_AWAY {
            if allows(raw.exit, at_exit) && allows(raw.entry, at_entry) {
                exits |= at_exit;
                entries |= at_entry;
            }
        }
        let mut features = Features::empty();
        for (control, feature) in [
            (secondary::RDTSCP, Features::RDTSCP),
            (secondary::INVPCID, Features::INVPCID),
            (secondary::XSAVES, Features::XSAVES),
            (secondary::WAITPKG, Features::WAITPKG),
            (secondary::PCONFIG, Features::PCONFIG),
        ] {
            features.set(feature, second & control != 0);
        }
        features.set(Features::INTEL_PT, raw.misc & MISC_INTEL_PT != 0);
        Ok(Self {
            revision: raw.basic as u32 & 0x7fff_ffff,
            pin: granted(raw.pin, 0, 0),
            primary: granted(raw.primary, primary::MSR_BITMAPS | primary::SECONDARY, 0),
            secondary: second,
            exit: granted(raw.exit, exit_required, exits),
            entry: granted(raw.entry, entry_required, entries),
            timer_rate: (raw.misc & MISC_TIMER_RATE) as u32,
            wait_for_sipi: (raw.misc & MISC_WAIT_FOR_SIPI != 0).then_some(WaitForSipi(())),
            largest_page: if raw.ept_vpid & ept_vpid::PAGES_1G != 0 {
                PageSize::Size1G
            } else {
                PageSize::Size2M
            },
            cr0_forced: raw.cr0_fixed[0] & !UNRESTRICTED_CR0,
            cr0_forbidden: !raw.cr0_fixed[1] & 0xffff_ffff,
            cr4_allowed: raw.cr4_fixed[1],
            features,
        })
    }

    /// Removes from `cr4_allowed` the bits of features that the guest does not see. IA32_VMX_CR4_FIXED1 allows all bits
    /// that the CPU has. `native` executes CPUID.
    #[must_use]
    pub fn with_cpuid(self, native: impl Fn(u32, u32) -> Leaf) -> Self {
        let policy = Policy { features: self.features, hypervisor_bit: false, narrower: 0 };
        Self { cr4_allowed: self.cr4_allowed & cr4::allowed(&policy, native), ..self }
    }
}

/// Returns true if a capability MSR allows all of `controls` to be 1. Its bits 63:32 are the allowed 1-settings.
const fn allows(msr: u64, controls: u32) -> bool {
    (msr >> 32) as u32 & controls == controls
}

/// Returns the required controls, those of the optional controls that the MSR allows, and the controls that must be 1,
/// which are bits 31:0 of the MSR.
const fn granted(msr: u64, required: u32, optional: u32) -> u32 {
    (required | optional | msr as u32) & (msr >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::control::{CR4_SMXE, CR4_VMXE};

    fn everything() -> RawCapabilities {
        RawCapabilities {
            basic: BASIC_TRUE_CONTROLS | 0x12,
            pin: !0 << 32 | 0x16,
            primary: !0 << 32 | 0x0400_6172,
            exit: !0 << 32 | 0x0003_6dfb,
            entry: !0 << 32 | 0x11fb,
            secondary: !0 << 32,
            ept_vpid: !0,
            misc: !0,
            cr0_fixed: [0x8000_0021, 0xffff_ffff],
            cr4_fixed: [0x2000, 0x0037_67ff],
        }
    }

    #[test]
    fn fields_name_the_capability_that_differs() {
        let chosen = |raw: &RawCapabilities| Capabilities::choose(raw).expect("nothing is missing").fields();
        let other = RawCapabilities { misc: !MISC_WAIT_FOR_SIPI, ..everything() };
        let differences: Vec<_> = chosen(&everything())
            .into_iter()
            .zip(chosen(&other))
            .filter(|(one, other)| one != other)
            .collect();
        assert_eq!(differences, [(("wait-for-SIPI", 1), ("wait-for-SIPI", 0))]);
    }

    #[test]
    fn optional_controls_are_set_if_the_cpu_allows_them() {
        let chosen = Capabilities::choose(&everything()).expect("nothing is missing");
        assert_eq!(chosen.largest_page, PageSize::Size1G);
        assert_eq!(chosen.cr0_forced, 0x20);
        assert_eq!(chosen.pin, 0x16, "neither external interrupts nor NMIs exit");
        assert_eq!(chosen.primary, 0x0400_6172 | primary::MSR_BITMAPS | primary::SECONDARY);
        assert!(chosen.has(secondary::VPID) && chosen.features.contains(Features::XSAVES));
        assert_eq!(chosen.entry & entry::IA32E_GUEST, 0);
        assert_ne!(chosen.entry & entry::LOAD_CET, 0);
    }

    #[test]
    fn every_missing_requirement_is_named() {
        let nothing = Capabilities::choose(&RawCapabilities::default()).expect_err("everything is missing");
        for name in ["TRUE control MSRs", "MSR bitmaps", "EPT", "EPT pages of 2 MiB", "unrestricted guest"] {
            assert!(nothing.contains(&name), "{name}");
        }
        let mut raw = everything();
        raw.secondary &= !(u64::from(secondary::UNRESTRICTED_GUEST) << 32);
        assert_eq!(Capabilities::choose(&raw), Err(vec!["unrestricted guest"]));
    }

    #[test]
    fn features_without_their_control_are_hidden() {
        let mut raw = everything();
        raw.secondary = u64::from(secondary::EPT | secondary::UNRESTRICTED_GUEST) << 32;
        raw.ept_vpid &= !ept_vpid::PAGES_1G;
        raw.misc &= !MISC_INTEL_PT;
        let chosen = Capabilities::choose(&raw).expect("only optional capabilities are missing");
        assert_eq!(chosen.features, Features::empty());
        assert_eq!(chosen.largest_page, PageSize::Size2M);
    }

    #[test]
    fn the_guest_may_set_the_cr4_bits_of_features_that_it_sees() {
        const LASS: u64 = 1 << 27;
        const FRED: u64 = 1 << 32;
        let raw = RawCapabilities {
            cr4_fixed: [0x2000, CR4_VMXE | CR4_SMXE | LASS | FRED | 0x7ff],
            ..everything()
        };
        let chosen = Capabilities::choose(&raw).expect("nothing is missing");
        let everything = |_, _| Leaf { eax: !0, ebx: !0, ecx: !0, edx: !0 };
        assert_eq!(chosen.clone().with_cpuid(everything).cr4_allowed, LASS | 0x7ff);
        let old = |leaf, _| Leaf { eax: if leaf == 0 { 0xd } else { 0 }, ..Leaf::default() };
        assert_eq!(chosen.with_cpuid(old).cr4_allowed, 0x7ff);
    }

    #[test]
    fn exits_put_state_away_only_if_entries_can_load_it() {
        let all = Capabilities::choose(&everything()).expect("nothing is missing");
        for (at_exit, at_entry) in PUT_AWAY {
            assert_eq!((all.exit & at_exit, all.entry & at_entry), (at_exit, at_entry));
            for bit in (0..32).map(|bit| 1 << bit) {
                let mut raw = everything();
                raw.exit &= !(u64::from(at_exit & bit) << 32);
                raw.entry &= !(u64::from(at_entry & bit) << 32);
                if raw == everything() {
                    continue;
                }
                let chosen = Capabilities::choose(&raw).expect("these controls are optional");
                assert_eq!((chosen.exit & at_exit, chosen.entry & at_entry), (0, 0), "{at_exit:#x} {bit:#x}");
                assert_eq!(chosen.fields(), all.fields(), "CPUs may differ in these controls");
            }
        }
    }
}
