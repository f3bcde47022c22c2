//! The part of VT-x that needs no CPU: numbers, formats and decisions. They follow Intel SDM Vol. 3C, chapters 24
//! "Introduction to Virtual Machine Extensions" to 28 "VM Exits".
//!
//! | file | what it is for |
//! |---|---|
//! | [`capabilities`] | The VT-x features that Vidar requires or uses if present, and the controls that follow from
//! them. |
//! | [`controls`] | The bits of the control fields. |
//! | [`field`] | The fields of a VMCS as typed constants. |
//! | [`setup`] | The first contents of a VMCS, in the order of the manual's chapters. |
//! | [`exit`] | Decodes an exit into the neutral `Exit`. |
//! | [`event`] | The format of injected and interrupted events. |
//! | [`debug`] | Decodes the exits that a debugger asks for, and passes exceptions on to the guest. |
//! | [`pending`] | Decides when a pending NMI or machine check goes into the guest. |
//! | [`msrs`] | The rows of the MSR policy that only VT-x needs. |
//! | [`msr_bitmap`] | Derives the MSR bitmap from the policy's tables. |
//! | [`feature_control`] | Decides from IA32_FEATURE_CONTROL if VT-x can be used. |
//! | [`switched_msrs`] | The MSRs that entries and exits switch between the guest's value and 0, if the CPU can. |
//! | [`ept`] | The format of extended page tables. |
//! | [`guest_state`] | Writes the guest's registers to a VMCS, and reads them. |
//! | [`rules`] | The rules of VM entry, to name the one that a failed entry breaks. |
//! | `fake` | A VMCS for tests. |
//! | [`snapshot`] | Reads the guest's state out of a VMCS for a crash report. |

pub mod capabilities;
pub mod controls;
pub mod debug;
pub mod ept;
pub mod event;
pub mod exit;
#[cfg(test)]
mod fake;
pub mod feature_control;
pub mod field;
pub mod guest_state;
pub mod msr_bitmap;
pub mod msrs;
pub mod pending;
pub mod rules;
pub mod setup;
pub mod snapshot;
pub mod switched_msrs;
