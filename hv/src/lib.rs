//! Vidar, a thin type-1 hypervisor for x86-64. `ARCHITECTURE.md` beside this crate is the map, and [`tour`] leads
//! through the code in numbered stops.
//!
//! This crate is the shell, which runs on the bare machine alone: it queries the CPU, and it carries out what the crate
//! [`vidar_core`] decides. On any other target it is empty. `main` is the image that GRUB loads.
//!
//! | room | what it does | where to start |
//! |---|---|---|
//! | [`boot`] | the trampoline and the boot order | [`boot::order`] |
//! | [`cpus`] | sets CPUs up for Vidar, starts the further ones, runs the guest on them, and reports how it ended | [`cpus::further`] |
//! | [`debugger`] | the serial line to gdb, and the guest's memory for it | [`debugger::start`] |
//! | [`extension`] | VT-x and AMD-V behind one trait: the only room that uses both | [`extension::Extension`] |
//! | [`vmx`] | VT-x: the instructions, the entry assembly, the virtual CPU | [`vmx::cpu`] |
//! | [`svm`] | AMD-V: the instructions, the entry assembly, the virtual CPU | [`svm::cpu`] |
//! | [`firmware`] | reads and changes firmware's tables where they lie | [`firmware::tables`] |
//! | [`host`] | Vidar itself: its image, heap, page tables and exceptions | [`host::tables`] |
//! | [`iommu`] | the machine's remapping units, which guard Vidar's memory against devices | [`iommu::find`] |
//! | [`debug`] | the log, the serial line, the screen, the panic report | [`debug::log`] |
//! | [`arch`] | one wrapper for each privileged instruction, MSRs, segments, the local APIC, the per-CPU block | [`arch::instructions`] |

#![cfg(target_os = "none")]
#![no_std]

extern crate alloc;

pub mod arch;
pub mod boot;
pub mod cpus;
pub mod debug;
pub mod debugger;
pub mod extension;
pub mod firmware;
pub mod host;
pub mod iommu;
pub mod svm;
pub mod tour;
pub mod vmx;
