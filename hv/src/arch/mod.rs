//! The CPU: one wrapper for each privileged instruction, MSRs, segments, exceptions, the per-CPU block.
//!
//! Nothing here allocates or decides; frames and stacks come in as arguments.

pub mod apic_init;
pub mod cpuid;
pub mod icr;
pub mod machine_check;
pub mod msr;
pub mod startup;

#[cfg(target_os = "none")]
pub mod apic;
#[cfg(target_os = "none")]
pub mod exceptions;
#[cfg(target_os = "none")]
pub mod fixup;
#[cfg(target_os = "none")]
pub mod instructions;
pub mod percpu;
pub mod processor;
#[cfg(target_os = "none")]
pub mod reset;
#[cfg(target_os = "none")]
pub mod segments;
#[cfg(target_os = "none")]
pub mod stop;
