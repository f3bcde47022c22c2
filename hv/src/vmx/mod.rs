//! The VT-x backend. Its numbers and rules are those of Intel SDM Vol. 3C, chapters 24 "Introduction to Virtual Machine
//! Extensions" to 28 "VM Exits".

pub mod capabilities;
pub mod controls;
pub mod ept;
pub mod event;
pub mod exit;
pub mod feature_control;
pub mod field;
pub mod kept;
pub mod msr_bitmap;
pub mod msrs;

#[cfg(target_os = "none")]
pub mod cpu;
#[cfg(target_os = "none")]
mod delivery;
#[cfg(target_os = "none")]
pub mod enable;
#[cfg(target_os = "none")]
pub mod entry;
#[cfg(target_os = "none")]
pub mod put_away;
#[cfg(target_os = "none")]
pub mod setup;
#[cfg(target_os = "none")]
pub mod snapshot;
#[cfg(target_os = "none")]
pub mod vmcs;
