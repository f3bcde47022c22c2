//! Facts about x86 CPUs. Nothing here decides for a guest.
//!
//! | file | what it is for |
//! |---|---|
//! | [`registers`] | The guest's general-purpose registers, as the entry assembly saves and loads them. |
//! | [`msr`] | The numbers of model-specific registers, and the bits of EFER. |
//! | [`cpuid`] | What CPUID returns. |
//! | [`icr`] | The interrupt command register of the local APIC: messages and their destinations. |
//! | [`apic_init`] | The state of the local APIC after INIT. |
//! | [`machine_check`] | Machine checks while Vidar runs: decides whose they are, and describes them. |
//! | [`microcode`] | The MSRs that load an update of the microcode. |

pub mod apic_init;
pub mod cpuid;
pub mod icr;
pub mod machine_check;
pub mod microcode;
pub mod msr;
pub mod registers;
