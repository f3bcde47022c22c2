//! The bits of CPUID that the guest gets otherwise than the CPU has them, by leaf.

use super::control::{CR4_KL, CR4_OSXSAVE, CR4_PKE};
use super::features::Features;
use super::xcr0;
use crate::x86::cpuid::Leaf;

/// One of the four registers.
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
    /// The register `output`.
    pub const fn get(&self, output: Output) -> u32 {
        match output {
            Output::Eax => self.eax,
            Output::Ebx => self.ebx,
            Output::Ecx => self.ecx,
            Output::Edx => self.edx,
        }
    }
}

/// What becomes of a bit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rule {
    /// Reads 0.
    Hide,
    /// Reads as this bit of the guest's CR4: the CPU would report Vidar's.
    Follow(u64),
    /// Reads 0 unless the extension lets the guest use the feature.
    Needs(Features),
    /// Reads 0 while the guest has disabled no-execute pages.
    NoExecute,
    /// Reads 1 if the guest is told of Vidar, and as the CPU has it if not: under another hypervisor the guest sees, as
    /// without Vidar, that it is not on a bare machine.
    Hypervisor,
}

/// A bit, and what becomes of it; for leaves with subleaves, in subleaf `subleaf` alone.
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

/// The bit of leaf 01H, ECX, that CPUs leave 0 for hypervisors.
pub(super) const HYPERVISOR_BIT: u32 = 31;

/// Leaf 01H: VMX and SMX are Vidar's; OSXSAVE; and [`HYPERVISOR_BIT`].
pub(super) const FEATURES: &[Bit] = &[
    bit(Output::Ecx, 5, Rule::Hide),
    bit(Output::Ecx, 6, Rule::Hide),
    bit(Output::Ecx, 27, Rule::Follow(CR4_OSXSAVE)),
    bit(Output::Ecx, HYPERVISOR_BIT, Rule::Hypervisor),
];

/// Leaf 07H: INVPCID, Intel PT, OSPKE, WAITPKG, RDPID, PCONFIG. Subleaf 1: FRED and the sources of NMIs that it reports, as
/// Vidar could not deliver such events again; MSRLIST, which no control that Vidar knows lets through; USER_MSR, whose
/// instructions exit at CPL 3; CET_SSS, with which an exit while a shadow stack is switched must not leave it busy;
/// APX, whose registers 16 to 31 Vidar cannot reach when an exit names one.
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

/// Leaf 0DH: XCR0 without APX; subleaf 1: XSAVES. The sizes in this leaf follow XCR0 and IA32_XSS, which are the guest's in
/// the CPU.
pub(super) const EXTENDED_STATE: &[Bit] =
    &[sub(0, Output::Eax, xcr0::APX, Rule::Hide), sub(1, Output::Eax, 3, Rule::Needs(Features::XSAVES))];

/// Leaf 19H: AESKLE.
pub(super) const KEY_LOCKER: &[Bit] = &[bit(Output::Ebx, 0, Rule::Follow(CR4_KL))];

/// Leaf 23H: PEBS by its own counters and subleaves, which Vidar refuses as it does the older kind.
pub(super) const PERFORMANCE: &[Bit] =
    &[sub(0, Output::Eax, 4, Rule::Hide), sub(0, Output::Eax, 5, Rule::Hide)];

/// Those subleaves.
pub(super) const PEBS_SUBLEAVES: [u32; 2] = [4, 5];

/// Leaf 80000001H: SVM and SKINIT are Vidar's; NX; RDTSCP.
pub(super) const AMD_FEATURES: &[Bit] = &[
    bit(Output::Ecx, 2, Rule::Hide),
    bit(Output::Ecx, 12, Rule::Hide),
    bit(Output::Edx, 20, Rule::NoExecute),
    bit(Output::Edx, 27, Rule::Needs(Features::RDTSCP)),
];
