//! What the guest may do and see: CPUID, MSRs, control registers and XCR0. Each policy is a function or a table that has
//! no state.

pub mod control;
pub mod cpuid;
pub mod cpuid_bits;
pub mod cr4;
pub mod misc_enable;
pub mod msr;
pub mod taught;
pub mod xcr0;
