//! The core of Vidar: everything that only decides.
//!
//! The code here is safe Rust and knows nothing of the machine that it runs on, so the host tests all of it. The crate
//! `hv` beside it is the shell: it asks the CPU, and it does what is decided here. Its module `tour` leads through both
//! crates.
//!
//! | room | what it knows | where to start |
//! |---|---|---|
//! | [`boot`] | the decisions of the boot order: options, refusals, who starts CPUs, how much memory Vidar takes | [`boot::options`] |
//! | [`loader`] | Multiboot information | [`loader::info`] |
//! | [`firmware`] | ACPI tables, the EFI memory map | [`firmware::acpi`] |
//! | [`linux`] | the Linux boot protocol: the header of a kernel file, where the kernel is placed, and what it is handed | [`linux::placement`] |
//! | [`report`] | the text of a crash report | [`report::state`] |
//! | [`kernel`] | the guest's Linux kernel as it runs, read from outside: symbols, call chains, its log | [`kernel::running`] |
//! | [`console`] | the serial line, characters on a screen | [`console::screen`] |
//! | [`kept_log`] | the log in memory, which a warm reset leaves as it is | [`kept_log::area`] |
//! | [`vmm`] | the virtual machine: exits, the answers to them, and the loop between them | [`vmm::run`] |
//! | [`debugger`] | gdb for the guest: the conversation, registers, breakpoints, and where CPUs stop | [`debugger::session`] |
//! | [`trace`] | the last exits of each CPU, in a ring | [`trace::ring`] |
//! | [`iommu`] | the guard of Vidar's memory against devices: remapping units, and what the guest sees of them | [`iommu::unit`] |
//! | [`policy`] | what the guest may do and see: CPUID, MSRs, control registers, XCR0 | [`policy::msr`] |
//! | [`vmx`] | VT-x: capabilities, VMCS fields, exit decoding, events, the format of EPT | [`vmx::exit`] |
//! | [`svm`] | AMD-V: capabilities, the VMCB, exit decoding, events, the format of nested page tables | [`svm::exit`] |
//! | [`mem`] | addresses, the memory map, memory types, the second-stage page table | [`mem::identity`] |
//! | [`x86`] | facts of the CPU: the numbers of registers, and what their bits mean | [`x86::registers`] |
//!
//! The page of each room names all of its files. A room uses only rooms that are further down in its chain;
//! `hv/ARCHITECTURE.md` has the arrows, and `cargo xtask tidy` checks them.

#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod boot;
pub mod console;
pub mod debugger;
pub mod firmware;
pub mod iommu;
pub mod kept_log;
pub mod kernel;
pub mod linux;
pub mod loader;
pub mod mem;
pub mod policy;
pub mod report;
pub mod svm;
pub mod trace;
pub mod vmm;
pub mod vmx;
pub mod x86;
