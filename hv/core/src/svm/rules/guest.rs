//! The rules for the guest's registers.

use super::state::{MANUAL, NUMBER, Rule, Section, State, TITLE, Value};
use crate::policy::control::{CR0_CD, CR0_NW, CR0_PE, CR0_PG, CR4_PAE};
use crate::svm::vmcb::{DEFAULT_32, LONG_CODE};
use crate::x86::msr::{EFER_LMA, EFER_LME, EFER_SVME};

/// The rules.
pub const SECTION: Section = Section { manual: MANUAL, number: NUMBER, title: TITLE, rules: RULES };

const RULES: &[Rule] = &[
    Rule { id: "A1", says: "EFER.SVME is 1.", holds: |s| s.get(Value::Efer) & EFER_SVME != 0 },
    Rule {
        id: "A2",
        says: "CR0.NW needs CR0.CD.",
        holds: |s| s.get(Value::Cr0) & (CR0_CD | CR0_NW) != CR0_NW,
    },
    Rule { id: "A3", says: "Bits 63:32 of CR0 are 0.", holds: |s| s.clear(Value::Cr0, HIGH) },
    Rule {
        id: "A4a",
        says: "CR3 in long mode is an address in memory.",
        holds: |s| s.page.save().efer & EFER_LMA == 0 || s.clear(Value::Cr3, s.beyond()),
    },
    Rule { id: "A4b", says: "CR4 has only bits that exist.", holds: |s| s.clear(Value::Cr4, !s.facts.cr4) },
    Rule {
        id: "A5",
        says: "Bits 63:32 of DR6 and DR7 are 0.",
        holds: |s| s.clear(Value::Dr6, HIGH) && s.clear(Value::Dr7, HIGH),
    },
    Rule { id: "A6", says: "EFER has only bits that exist.", holds: |s| s.clear(Value::Efer, !s.facts.efer) },
    Rule {
        id: "A7a",
        says: "EFER.LME and CR0.PG together need CR4.PAE.",
        holds: |s| !pages_in_long_mode(s) || s.get(Value::Cr4) & CR4_PAE != 0,
    },
    Rule {
        id: "A7b",
        says: "EFER.LME and CR0.PG together need CR0.PE.",
        holds: |s| !pages_in_long_mode(s) || s.get(Value::Cr0) & CR0_PE != 0,
    },
    Rule {
        id: "A8",
        says: "CS in long mode does not have L and D together.",
        holds: |s| {
            const BOTH: u64 = (LONG_CODE | DEFAULT_32) as u64;
            !pages_in_long_mode(s)
                || s.page.save().cr4 & CR4_PAE == 0
                || s.get(Value::CsAttributes) & BOTH != BOTH
        },
    },
];

/// Bits 63:32.
const HIGH: u64 = 0xffff_ffff << 32;

/// Returns true if EFER.LME and CR0.PG are both 1. Records the registers.
#[inline(never)]
fn pages_in_long_mode(s: &State<'_>) -> bool {
    s.get(Value::Efer) & EFER_LME != 0 && s.get(Value::Cr0) & CR0_PG != 0
}
