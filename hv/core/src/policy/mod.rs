//! The policies: what the guest may do and see. Each is a function or a table, without state.
//!
//! | file | what it is for |
//! |---|---|
//! | [`cpuid`] | Answers CPUID: the CPU's own values, except for the bits in the tables. |
//! | [`cpuid_bits`] | The tables of these bits, by leaf. |
//! | [`features`] | The features that the guest sees only if the extension supports them. |
//! | [`known_features`] | The features of CPUID leaf 7 that this version of Vidar knows. On VT-x the guest does not see the others. |
//! | [`msr`] | The MSRs that Vidar filters, and what becomes of reads and writes of them. |
//! | [`control`] | The effects of writes to CR0, CR4 and EFER, and when they fault. |
//! | [`cr4`] | The bits of CR4 that the guest may set. |
//! | [`guard`] | What the option `guard` keeps on, once the guest's kernel has switched it on. |
//! | [`xcr0`] | The values of XCR0 that the CPU accepts. |

pub mod control;
pub mod cpuid;
pub mod cpuid_bits;
pub mod cr4;
pub mod features;
pub mod guard;
pub mod known_features;
pub mod msr;
pub mod xcr0;
