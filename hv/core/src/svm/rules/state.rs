//! The state that the rules of VMRUN judge: a VMCB, and what the CPU can do.

use crate::policy::cpuid::Policy;
use crate::policy::cr4;
use crate::policy::features::Features;
use crate::svm::efer;
use crate::svm::vmcb::{Page, intercept};
use crate::vmm::rules::{Asked, Record, Subject};
use crate::x86::cpuid::Leaf;
use crate::x86::msr::{EFER_LMA, EFER_SVME};

/// The manual that all sections are of.
pub const MANUAL: &str = "AMD APM Vol. 2";
/// The number of the section that has most rules.
pub const NUMBER: &str = "15.5.1";
/// The title of that section.
pub const TITLE: &str = "Basic Operation";

/// The rules of VMRUN, as the subject of tables.
pub struct Vmrun;

impl Subject for Vmrun {
    type State<'a> = State<'a>;
}

/// Rules of VMRUN.
pub type Rules = crate::vmm::rules::Rules<Vmrun>;
/// The rules of one section of the manual.
pub type Section = crate::vmm::rules::Section<Vmrun>;

/// What the rules must know of the CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Facts {
    /// The width of a physical address in bits.
    pub address_bits: u32,
    /// The bits of CR4 that exist.
    pub cr4: u64,
    /// The bits of EFER that exist.
    pub efer: u64,
}

impl Facts {
    /// Returns what CPUID says. `native` executes it.
    #[cold]
    pub fn new(address_bits: u32, native: impl Fn(u32, u32) -> Leaf) -> Self {
        /// CPUID Fn8000_0008_EBX: LMSLE does not exist.
        const NO_LMSLE: u32 = 1 << 20;
        const LMSLE: u64 = 1 << 13;
        let policy = Policy { features: Features::all(), hypervisor_bit: false, narrower: 0 };
        let lmsle = if native(0x8000_0008, 0).ebx & NO_LMSLE == 0 { LMSLE } else { 0 };
        let efer = efer::allowed(|leaf| native(leaf, 0)) | EFER_LMA | EFER_SVME | lmsle;
        Self { address_bits, cr4: cr4::allowed(&policy, native), efer }
    }
}

macro_rules! values {
    ($($name:ident $text:literal |$state:ident| $read:expr;)*) => {
        /// A value of the VMCB.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Value {
            $(
                #[doc = concat!("The value of ", $text, ".")]
                $name,
            )*
        }

        /// The names of the values.
        const NAMES: &[&str] = &[$($text),*];

        impl Value {
            fn read(self, state: &State<'_>) -> u64 {
                match self {
                    $(Self::$name => { let $state = state; $read })*
                }
            }
        }
    };
}

values! {
    Efer "EFER" |s| s.page.save().efer;
    Cr0 "CR0" |s| s.page.save().cr0;
    Cr3 "CR3" |s| s.page.save().cr3;
    Cr4 "CR4" |s| s.page.save().cr4;
    Dr6 "DR6" |s| s.page.save().dr6;
    Dr7 "DR7" |s| s.page.save().dr7;
    CsAttributes "CS attributes" |s| s.page.save().cs.attributes.into();
    Pat "G_PAT" |s| s.page.save().g_pat;
    Intercepts "intercepts of VMRUN and more" |s| s.page.control().intercepts[intercept::MORE].into();
    Asid "ASID" |s| s.page.control().guest_asid.into();
    IoMap "IOPM_BASE_PA" |s| s.page.control().iopm_base_pa;
    MsrMap "MSRPM_BASE_PA" |s| s.page.control().msrpm_base_pa;
    Injected "EVENTINJ" |s| s.injected;
    NestedRoot "N_CR3" |s| s.page.control().n_cr3;
}

/// The state before a VMRUN.
pub struct State<'a> {
    /// The VMCB.
    pub page: &'a Page,
    /// What the rules must know of the CPU.
    pub facts: &'a Facts,
    /// The event to inject.
    injected: u64,
    record: Record,
}

impl Asked for State<'_> {
    fn record(&self) -> &Record {
        &self.record
    }

    fn name(key: u32) -> &'static str {
        NAMES[key as usize]
    }
}

impl<'a> State<'a> {
    /// Returns the state with the VMCB `page`, on a CPU with `facts`.
    pub fn new(page: &'a Page, facts: &'a Facts) -> Self {
        Self { page, facts, injected: page.control().eventinj, record: Record::default() }
    }

    /// Returns the state before an entry that was to inject `event`. The exit has cleared EVENTINJ since then.
    #[must_use]
    pub fn with_event(self, event: u64) -> Self {
        Self { injected: event, ..self }
    }

    /// Returns a value, and records it.
    #[inline(never)]
    pub fn get(&self, value: Value) -> u64 {
        let read = value.read(self);
        self.record.add(value as u32, read);
        read
    }

    /// Returns true if the bits `mask` of a value are 0. Records it.
    #[inline(never)]
    pub fn clear(&self, value: Value, mask: u64) -> bool {
        self.get(value) & mask == 0
    }

    /// Returns the bits beyond the width of a physical address.
    pub fn beyond(&self) -> u64 {
        u64::MAX << self.facts.address_bits.min(63)
    }
}
