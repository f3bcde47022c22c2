//! The rules of VMRUN, all of which the state in the VMCB must keep. A VMRUN that fails does not say why: [`broken`]
//! names the rule that is broken. AMD APM Vol. 2, 15.5.1 "Basic Operation", canonicalization and consistency checks.
//!
//! Each file has tables of [rules]. A rule reads the [`State`], which records what it reads for the
//! report. [`cases`] has a VMCB for each rule that breaks it alone.
//!
//! Not here are rules that Vidar cannot break: paging of the host is on, the VMCB is a page of memory, and the guest's
//! memory is not encrypted.
//!
//! | file | what it is for |
//! |---|---|
//! | [`state`] | What the rules judge: the VMCB, and facts about the CPU. |
//! | [`guest`] | The guest's registers. |
//! | [`cases`] | For each rule changes that break it, for tests. |
//! | [`control`] | The control area, the injected event, and nested paging. |

pub mod cases;
pub mod control;
pub mod guest;
pub mod state;

use self::state::{Section, State};
use crate::vmm::rules::{self, Broken};

/// All rules.
pub static SECTIONS: [Section; 4] =
    [guest::SECTION, control::CONTROLS, control::INJECTION, control::NESTED_PAGING];

/// Calls `found` with each rule that `state` breaks.
#[cold]
pub fn broken(state: &State<'_>, found: &mut dyn FnMut(&Broken<'_>)) {
    rules::broken(&SECTIONS, state, found);
}
