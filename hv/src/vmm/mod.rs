//! The neutral part: what an exit is, what the answer is, and the loop between them. No vendor, no unsafe code.

pub mod apic;
pub mod backend;
pub mod control;
pub mod cpuid;
pub mod cpuid_bits;
pub mod cr4;
pub mod crash;
pub mod doubt;
pub mod entry;
pub mod exit;
pub mod fetch;
pub mod hypercall;
pub mod ipi;
pub mod machine;
pub mod memory;
pub mod microcode;
pub mod misc_enable;
pub mod msr;
pub mod outcome;
pub mod registers;
pub mod run;
pub mod store;
pub mod taught;
pub mod xcr0;
