//! The virtual machine: exits, the answers to them, and the loop between them. Nothing here names a vendor.

pub mod apic;
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
pub mod outcome;
pub mod percpu;
pub mod processor;
pub mod run;
pub mod startup;
pub mod store;
pub mod vcpu;
