//! From GRUB's first instruction to the guest's. `order.rs` has the boot order, with what it calls.

pub mod acpi;
pub mod annex;
pub mod conventional;
pub mod info;
pub mod landing;
pub mod madt;
pub mod multiboot1;
pub mod multiboot2;
pub mod options;
pub mod refusal;
pub mod rsdp;
pub mod startup;
pub mod suspend;

#[cfg(target_os = "none")]
mod amd;
#[cfg(target_os = "none")]
mod ap;
#[cfg(target_os = "none")]
mod consoles;
#[cfg(target_os = "none")]
pub mod cpu;
#[cfg(target_os = "none")]
mod cpus;
#[cfg(target_os = "none")]
mod end;
#[cfg(target_os = "none")]
mod extension;
#[cfg(target_os = "none")]
mod intel;
#[cfg(target_os = "none")]
mod linux;
#[cfg(target_os = "none")]
mod listed;
#[cfg(target_os = "none")]
mod machine;
#[cfg(target_os = "none")]
pub mod order;
#[cfg(target_os = "none")]
mod tables;
#[cfg(target_os = "none")]
mod trampoline;
