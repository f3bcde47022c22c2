//! VT-x: capabilities, the VMCS by its fields, exits decoded, events, and the formats of EPT and the MSR bitmap. Its numbers
//! and rules are those of Intel SDM Vol. 3C, chapters 24 "Introduction to Virtual Machine Extensions" to 28 "VM Exits".

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
pub mod put_away;
pub mod setup;
pub mod snapshot;
