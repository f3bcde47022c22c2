//! The CPU: one wrapper for each privileged instruction, MSRs, segments, the per-CPU block.
//!
//! Nothing here allocates or decides: callers pass in the memory that it needs.
//!
//! | file | what it is for |
//! |---|---|
//! | [`instructions`] | The wrappers of privileged instructions. |
//! | [`msr`] | RDMSR and WRMSR, each in a form that panics at #GP and in a form that returns an error. |
//! | [`cpuid`] | CPUID, and the few features that Vidar itself needs to know of. |
//! | [`processor`] | The physical CPU, as the run loop uses it for the guest: it implements [`Processor`](vidar_core::vmm::processor::Processor). |
//! | [`fixup`] | The table of instructions that may fault, with the address where each continues. |
//! | [`segments`] | The GDT and the TSS of a CPU. |
//! | [`percpu`] | Finds the per-CPU block of this CPU through GS. |
//! | [`pat`] | Programs the page-attribute table. |
//! | [`apic`] | The local APIC: its mode and ID, and the messages that Vidar sends. |
//! | [`apic_init`] | Puts the local APIC into its state after INIT. |
//! | [`stop`] | Stops the other CPUs for a crash report. |
//! | [`reset`] | Resets the machine. |

pub mod apic;
pub mod apic_init;
pub mod cpuid;
pub mod fixup;
pub mod instructions;
pub mod msr;
pub mod pat;
pub mod percpu;
pub mod processor;
pub mod reset;
pub mod segments;
pub mod stop;
