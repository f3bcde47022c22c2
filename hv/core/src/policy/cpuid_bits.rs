//! The bits of CPUID that differ between the guest and the CPU, by leaf.

use super::control::{CR4_KL, CR4_OSXSAVE, CR4_PKE};
use super::features::Features;
use super::xcr0;
use crate::x86::cpuid::Leaf;

/// A register in which CPUID returns a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// EAX.
    Eax,
    /// EBX.
    Ebx,
    /// ECX.
    Ecx,
    /// EDX.
    Edx,
}

impl Leaf {
    /// Returns the value of the register `output`.
    pub const fn get(&self, output: Output) -> u32 {
        match output {
            Output::Eax => self.eax,
            Output::Ebx => self.ebx,
            Output::Ecx => self.ecx,
            Output::Edx => self.edx,
        }
    }
}

/// The rule for a bit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rule {
    /// The bit is 0.
    Hide,
    /// The bit is that of the guest's CR4, since the CPU reports the bit of Vidar's CR4.
    Follow(u64),
    /// The bit is 0 unless the guest can use this feature.
    Needs(Features),
    /// The bit is 0 while the guest has disabled no-execute pages.
    NoExecute,
    /// The bit is 1 if CPUID reports Vidar to the guest, and otherwise that of the CPU. So under another hypervisor the
    /// guest sees, as without Vidar, that it is not on a bare machine.
    Hypervisor,
}

/// A bit of a leaf, and the rule for it. If `subleaf` is set, the rule applies to that subleaf alone.
pub(super) struct Bit {
    pub subleaf: Option<u32>,
    pub output: Output,
    pub bit: u32,
    pub rule: Rule,
}

const fn bit(output: Output, bit: u32, rule: Rule) -> Bit {
    Bit { subleaf: None, output, bit, rule }
}

const fn sub(subleaf: u32, output: Output, bit: u32, rule: Rule) -> Bit {
    Bit { subleaf: Some(subleaf), output, bit, rule }
}

/// The number of the bit in leaf 01H, ECX, that is 0 on a bare machine and that hypervisors set.
pub(super) const HYPERVISOR_BIT: u32 = 31;

/// Leaf 01H: VMX, SMX, OSXSAVE, and [`HYPERVISOR_BIT`].
pub(super) const FEATURES: &[Bit] = &[
    bit(Output::Ecx, 5, Rule::Hide),
    bit(Output::Ecx, 6, Rule::Hide),
    bit(Output::Ecx, 27, Rule::Follow(CR4_OSXSAVE)),
    bit(Output::Ecx, HYPERVISOR_BIT, Rule::Hypervisor),
];

/// Leaf 07H. Subleaf 0: INVPCID, Intel PT, OSPKE, WAITPKG, RDPID and PCONFIG depend on the extension or on CR4.
///
/// Subleaf 1, of which these are hidden:
///
/// * FRED and the NMI sources that it reports, since Vidar cannot deliver such an event again;
/// * MSRLIST, since Vidar does not set a control that enables its instructions;
/// * USER_MSR, since its instructions exit at CPL 3;
/// * CET_SSS, since it requires that no exit leaves a shadow stack busy while the CPU switches to it;
/// * APX, since Vidar cannot access registers 16 to 31 if an exit names one.
pub(super) const EXTENDED_FEATURES: &[Bit] = &[
    sub(0, Output::Ebx, 10, Rule::Needs(Features::INVPCID)),
    sub(0, Output::Ebx, 25, Rule::Needs(Features::INTEL_PT)),
    sub(0, Output::Ecx, 4, Rule::Follow(CR4_PKE)),
    sub(0, Output::Ecx, 5, Rule::Needs(Features::WAITPKG)),
    sub(0, Output::Ecx, 22, Rule::Needs(Features::RDTSCP)),
    sub(0, Output::Edx, 18, Rule::Needs(Features::PCONFIG)),
    sub(1, Output::Eax, 17, Rule::Hide),
    sub(1, Output::Eax, 20, Rule::Hide),
    sub(1, Output::Eax, 27, Rule::Hide),
    sub(1, Output::Edx, 15, Rule::Hide),
    sub(1, Output::Edx, 18, Rule::Hide),
    sub(1, Output::Edx, 21, Rule::Hide),
];

/// Leaf 0DH. Subleaf 0: APX in XCR0; subleaf 1: XSAVES. The sizes in this leaf depend on XCR0 and IA32_XSS, which hold
/// the guest's values in the CPU.
pub(super) const EXTENDED_STATE: &[Bit] =
    &[sub(0, Output::Eax, xcr0::APX, Rule::Hide), sub(1, Output::Eax, 3, Rule::Needs(Features::XSAVES))];

/// Leaf 19H: AESKLE.
pub(super) const KEY_LOCKER: &[Bit] = &[bit(Output::Ebx, 0, Rule::Follow(CR4_KL))];

/// Leaf 23H: the subleaves of architectural PEBS, which are hidden as the older kind of PEBS is.
pub(super) const PERFORMANCE: &[Bit] =
    &[sub(0, Output::Eax, 4, Rule::Hide), sub(0, Output::Eax, 5, Rule::Hide)];

/// The subleaves of leaf 23H that describe PEBS.
pub(super) const PEBS_SUBLEAVES: [u32; 2] = [4, 5];

/// Leaf 80000001H: SVM, SKINIT, NX and RDTSCP.
pub(super) const AMD_FEATURES: &[Bit] = &[
    bit(Output::Ecx, 2, Rule::Hide),
    bit(Output::Ecx, 12, Rule::Hide),
    bit(Output::Edx, 20, Rule::NoExecute),
    bit(Output::Edx, 27, Rule::Needs(Features::RDTSCP)),
];
