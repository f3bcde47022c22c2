//! The CPU: one wrapper for each privileged instruction, MSRs, segments, the per-CPU block.
//!
//! Nothing here allocates or decides; frames and stacks come in as arguments.

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
