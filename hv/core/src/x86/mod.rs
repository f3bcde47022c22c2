//! Facts of x86 CPUs: numbers of registers, what their bits mean, and what a CPU answers. Nothing here decides for a guest.

pub mod apic_init;
pub mod cpuid;
pub mod icr;
pub mod machine_check;
pub mod msr;
pub mod registers;
