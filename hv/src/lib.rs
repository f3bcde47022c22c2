//! Vidar, a thin type-1 hypervisor for x86-64. `ARCHITECTURE.md` beside this crate is the map.
//!
//! The library holds all logic and is tested on the host; what only runs on the bare machine is compiled for
//! `target_os = "none"` alone.

#![cfg_attr(target_os = "none", no_std)]

extern crate alloc;

pub mod arch;
pub mod boot;
pub mod debug;
pub mod guest;
pub mod mem;
pub mod svm;
pub mod vmm;
pub mod vmx;
