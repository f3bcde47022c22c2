//! The rules for the control area of the VMCB, and for what nested paging adds.

use super::state::{MANUAL, NUMBER, Section, State, TITLE, Value};
use crate::mem::addr::PAGE_SIZE;
use crate::mem::pat::is_valid;
use crate::policy::control::CR0_PG;
use crate::svm::vmcb::{LONG_CODE, NP_ENABLE};
use crate::vmm::rules::rules;
use crate::x86::msr::EFER_LME;

/// The rules for the controls.
pub const CONTROLS: Section = Section {
    manual: MANUAL,
    number: NUMBER,
    title: TITLE,
    rules: rules![
        State,
        ("A9a", "VMRUN is intercepted.", |s| s.get(Value::Intercepts) & 1 != 0),
        ("A9b", "The ASID is not 0.", |s| s.get(Value::Asid) != 0),
        ("A10", "The maps of MSRs and I/O ports end in memory.", |s| {
            ends_in_memory(s, Value::MsrMap, 2) && ends_in_memory(s, Value::IoMap, 3)
        }),
    ],
};

/// The rules for the injected event.
pub const INJECTION: Section = Section {
    manual: MANUAL,
    number: "15.20",
    title: "Event Injection",
    rules: rules![
        State,
        ("A11a", "The injected event has a type that exists: 0, 2, 3 or 4.", |s| {
            event(s).is_none_or(|(kind, _)| matches!(kind, 0 | 2..=4))
        }),
        ("A11b", "The injected exception has a vector of at most 31 other than 2.", |s| {
            event(s).is_none_or(|(kind, vector)| kind != EXCEPTION || vector <= 31 && vector != 2)
        }),
        (
            "A11c",
            "The injected exception is one that its mode has: #OF (4) and #BR (5) do not exist in 64-bit code.",
            |s| {
                event(s).is_none_or(|event| {
                    let save = s.page.save();
                    let is_64_bit = save.efer & EFER_LME != 0
                        && save.cr0 & CR0_PG != 0
                        && s.get(Value::CsAttributes) & u64::from(LONG_CODE) != 0;
                    !is_64_bit || !matches!(event, (EXCEPTION, 4 | 5))
                })
            }
        ),
    ],
};

/// The rules that nested paging adds.
pub const NESTED_PAGING: Section = Section {
    manual: MANUAL,
    number: "15.25.4",
    title: "Nested Paging and VMRUN/#VMEXIT",
    rules: rules![
        State,
        ("A12a", "The root of the nested page tables is in memory.", |s| {
            !nested(s) || s.clear(Value::NestedRoot, s.beyond())
        }),
        ("A12b", "Each byte of G_PAT is a memory type.", |s| !nested(s) || is_valid(s.get(Value::Pat))),
    ],
};

/// The type of an exception.
const EXCEPTION: u64 = 3;

/// Returns the type and the vector of the injected event, and records it. Returns `None` if there is none.
#[inline(never)]
fn event(s: &State<'_>) -> Option<(u64, u64)> {
    let event = s.get(Value::Injected);
    (event & 1 << 31 != 0).then_some((event >> 8 & 7, event & 0xff))
}

/// Returns true if a map of `pages` pages ends in memory. VMRUN ignores bits 11:0 of its address.
fn ends_in_memory(s: &State<'_>, map: Value, pages: u64) -> bool {
    let first = s.get(map) & !(PAGE_SIZE - 1);
    first.checked_add(pages * PAGE_SIZE - 1).is_some_and(|last| last & s.beyond() == 0)
}

/// Returns true if nested paging is enabled.
fn nested(s: &State<'_>) -> bool {
    s.page.control().nested_control & NP_ENABLE != 0
}
