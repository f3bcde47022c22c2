//! AMD-V: capabilities, the VMCB, exits decoded, events, and the formats of nested page tables and the MSR permissions map. Its
//! numbers and rules are those of AMD APM Vol. 2, chapter 15 "Secure Virtual Machine" and its appendices B "Layout of
//! VMCB" and C "SVM Intercept Exit Codes".

pub mod capabilities;
pub mod efer;
pub mod event;
pub mod exit;
pub mod instruction;
pub mod msrs;
pub mod npt;
pub mod permissions_map;
pub mod setup;
pub mod snapshot;
pub mod vmcb;
