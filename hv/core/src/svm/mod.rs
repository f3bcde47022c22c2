//! The part of AMD-V that needs no CPU: numbers, formats and decisions. They follow AMD APM Vol. 2, chapter 15 "Secure
//! Virtual Machine" and appendices B "Layout of VMCB" and C "SVM Intercept Exit Codes".
//!
//! | file | what it is for |
//! |---|---|
//! | [`capabilities`] | The AMD-V features that Vidar requires or uses if present. |
//! | [`vmcb`] | The fields of the VMCB. Each change names what the CPU must read again. |
//! | [`setup`] | The first contents of a VMCB: what exits, and the guest's state. |
//! | [`exit`] | Decodes an exit into the neutral `Exit`. |
//! | [`control_write`] | Decodes the instructions that exit as writes of control registers. |
//! | [`debug`] | Decodes the exits that only a debugger asks for. |
//! | [`nmi`] | Decides what becomes of an NMI that exits. |
//! | [`instruction`] | Finds the length of an intercepted instruction, for CPUs that do not report it. |
//! | [`event`] | The format of injected and interrupted events. |
//! | [`msrs`] | The rows of the MSR policy that only AMD-V needs. |
//! | [`permissions_map`] | Derives the MSR permissions map from the policy's tables. |
//! | [`efer`] | The bits of EFER that the guest may set. |
//! | [`npt`] | The format of nested page tables. |
//! | [`guest_state`] | Writes the guest's registers to a VMCB, and reads them. |
//! | [`fields`] | The fields of a VMCB by name, for a debugger. |
//! | [`rules`] | The rules of VMRUN, to name the one that a failed VMRUN breaks. |
//! | [`snapshot`] | Reads the guest's state out of a VMCB for a crash report. |

pub mod capabilities;
pub mod control_write;
pub mod debug;
pub mod efer;
pub mod event;
pub mod exit;
pub mod fields;
pub mod guest_state;
pub mod instruction;
pub mod msrs;
pub mod nmi;
pub mod npt;
pub mod permissions_map;
pub mod rules;
pub mod setup;
pub mod snapshot;
pub mod vmcb;
