//! The rules of VM entry, all of which the state in the VMCS must keep. An entry that fails says only in which group of
//! rules the broken one is; [`broken`] names it. Intel SDM Vol. 3C, chapter 27 "VM Entries".
//!
//! Each file has the rules of some sections as a table of [rules]. A rule reads the [`State`], which
//! records what it reads for the report. [`cases`] has a state for each rule that breaks it alone.
//!
//! Not here are rules of features that Vidar hides from its guest and never uses: FRED, user interrupts, Intel PT and
//! branch records with the bits that each CPU allows, IPI virtualization, HLAT, and the virtualization of
//! IA32_SPEC_CTRL.
//!
//! | file | what it is for |
//! |---|---|
//! | [`state`] | What the rules judge: fields, memory, and facts about the CPU. |
//! | [`facts`] | What the rules must know of the CPU. |
//! | [`bits`] | Bits of controls that only the rules know. |
//! | [`fields`] | Fields that only the rules read, and the names of all fields. |
//! | [`values`] | What the values of MSRs must be. |
//! | [`cases`] | For each rule changes that break it, for tests. |
//! | [`change`] | What a case changes, and how several of them begin. |
//! | [`controls`] | VM-execution controls that Vidar uses. |
//! | [`unused`] | VM-execution controls that Vidar never sets. |
//! | [`transitions`] | VM-exit controls and VM-entry controls. |
//! | [`injection`] | The event that an entry injects. |
//! | [`host`] | The host-state area. |
//! | [`registers`] | Control registers, debug registers and MSRs. |
//! | [`segments`] | Segment registers. |
//! | [`descriptors`] | Descriptor-table registers. |
//! | [`rip_flags`] | RIP, RFLAGS and SSP. |
//! | [`activity`] | Non-register state. |
//! | [`pdptes`] | Page-directory-pointer-table entries. |
//! | [`msrs`] | The list of MSRs that an entry loads. |

pub mod activity;
pub mod bits;
pub mod cases;
pub mod change;
pub mod controls;
pub mod descriptors;
pub mod facts;
pub mod fields;
pub mod host;
pub mod injection;
pub mod msrs;
pub mod pdptes;
pub mod registers;
pub mod rip_flags;
pub mod segments;
pub mod state;
pub mod transitions;
pub mod unused;
pub mod values;

use self::state::{Section, State};
use crate::vmm::rules::{self, Broken};

/// The rules that a state of Vidar's could break, in the order in which the CPU checks them: controls and the host's
/// state, then the guest's.
pub static OWN: [Section; 13] = [
    controls::SECTION,
    transitions::EXIT,
    transitions::ENTRY,
    injection::SECTION,
    host::REGISTERS,
    host::SEGMENTS,
    host::ADDRESS_SPACE,
    registers::SECTION,
    segments::SECTION,
    descriptors::SECTION,
    rip_flags::SECTION,
    activity::SECTION,
    pdptes::SECTION,
];

/// The rules of what Vidar never uses: controls, and a list of MSRs for entries. They are not in the image.
pub static OTHERS: [Section; 2] = [unused::SECTION, msrs::SECTION];

/// Calls `found` with each rule of `sections` that `state` breaks.
#[cold]
pub fn broken(sections: &[Section], state: &State<'_>, found: &mut dyn FnMut(&Broken<'_>)) {
    rules::broken(sections, state, found);
}

/// Returns the reason why no rule explains an entry that failed with `code`, which is the number of a VM-instruction
/// error, 0 for VMfailInvalid, or a basic exit reason. Returns `None` if a rule does: the errors 7 and 8 are those of
/// controls and of the host's state, and the exit reasons 33 and 34 those of the guest's state and of the list of MSRs.
/// Intel SDM Vol. 3C, 31.4 "VM Instruction Error Numbers" and 27.8 "VM-Entry Failures During or After Loading Guest
/// State".
pub const fn beyond(code: u32) -> Option<&'static str> {
    match code {
        7 | 8 | 33 | 34 => None,
        0 => Some(
            "the CPU has no current VMCS (VMfailInvalid), so the values above are not the guest's; please report this with what is above",
        ),
        _ => Some(
            "this error is not about the guest's state, so no rule explains it (Intel SDM Vol. 3C, 31.4 \"VM Instruction Error \
             Numbers\"); please report this with what is above",
        ),
    }
}
