//! Vidar, a thin type-1 hypervisor for x86-64. `ARCHITECTURE.md` beside this crate is the map.
//!
//! This crate is the shell, which runs on the bare machine alone: it asks the CPU, and it does what the crate `vidar-core`
//! decides. On any other target it is empty.

#![cfg(target_os = "none")]
#![no_std]

extern crate alloc;

pub mod arch;
pub mod boot;
pub mod cpus;
pub mod debug;
pub mod extension;
pub mod firmware;
pub mod host;
pub mod svm;
pub mod vmx;
