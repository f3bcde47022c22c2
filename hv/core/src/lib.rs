//! The core of Vidar: everything that only decides.
//!
//! The code here is safe Rust without a word of the machine that it runs on, so that all of it is tested on the host. The
//! crate `hv` beside it is the shell: it asks the CPU, and it does what is decided here.

#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod boot;
pub mod console;
pub mod firmware;
pub mod linux;
pub mod loader;
pub mod mem;
pub mod policy;
pub mod svm;
pub mod vmm;
pub mod vmx;
pub mod x86;
