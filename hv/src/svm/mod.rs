//! The AMD-V backend. Its numbers and rules are those of AMD APM Vol. 2, chapter 15 "Secure Virtual Machine" and its
//! appendices B "Layout of VMCB" and C "SVM Intercept Exit Codes".

pub mod capabilities;
pub mod efer;
pub mod event;
pub mod exit;
pub mod instruction;
pub mod msrs;
pub mod npt;
pub mod permissions_map;
pub mod vmcb;

#[cfg(target_os = "none")]
pub mod cpu;
#[cfg(target_os = "none")]
pub mod enable;
#[cfg(target_os = "none")]
pub mod entry;
#[cfg(target_os = "none")]
pub mod instructions;
#[cfg(target_os = "none")]
pub mod setup;
#[cfg(target_os = "none")]
pub mod snapshot;
