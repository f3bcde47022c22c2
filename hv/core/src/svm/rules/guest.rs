//! The rules for the guest's registers.

use super::state::{MANUAL, NUMBER, Rules, Section, State, TITLE, Value};
use crate::policy::control::{CR0_CD, CR0_NW, CR0_PE, CR0_PG, CR4_PAE};
use crate::svm::vmcb::{DEFAULT_32, LONG_CODE};
use crate::vmm::rules::rules;
use crate::x86::msr::{EFER_LMA, EFER_LME, EFER_SVME};

/// The rules.
pub const SECTION: Section = Section { manual: MANUAL, number: NUMBER, title: TITLE, rules: RULES };

const RULES: Rules = rules![
    State,
    ("A1", "EFER.SVME is 1.", |s| s.get(Value::Efer) & EFER_SVME != 0),
    ("A2", "CR0.NW needs CR0.CD.", |s| s.get(Value::Cr0) & (CR0_CD | CR0_NW) != CR0_NW),
    ("A3", "Bits 63:32 of CR0 are 0.", |s| s.clear(Value::Cr0, HIGH)),
    ("A4a", "CR3 in long mode is an address in memory.", |s| {
        s.page.save().efer & EFER_LMA == 0 || s.clear(Value::Cr3, s.beyond())
    }),
    ("A4b", "CR4 has only bits that exist.", |s| s.clear(Value::Cr4, !s.facts.cr4)),
    ("A5", "Bits 63:32 of DR6 and DR7 are 0.", |s| s.clear(Value::Dr6, HIGH) && s.clear(Value::Dr7, HIGH)),
    ("A6", "EFER has only bits that exist.", |s| s.clear(Value::Efer, !s.facts.efer)),
    ("A7a", "EFER.LME and CR0.PG together need CR4.PAE.", |s| {
        !pages_in_long_mode(s) || s.get(Value::Cr4) & CR4_PAE != 0
    }),
    ("A7b", "EFER.LME and CR0.PG together need CR0.PE.", |s| {
        !pages_in_long_mode(s) || s.get(Value::Cr0) & CR0_PE != 0
    }),
    ("A8", "CS in long mode does not have L and D together.", |s| {
        const BOTH: u64 = (LONG_CODE | DEFAULT_32) as u64;
        !pages_in_long_mode(s)
            || s.page.save().cr4 & CR4_PAE == 0
            || s.get(Value::CsAttributes) & BOTH != BOTH
    }),
];

/// Bits 63:32.
const HIGH: u64 = 0xffff_ffff << 32;

/// Returns true if EFER.LME and CR0.PG are both 1. Records the registers.
#[inline(never)]
fn pages_in_long_mode(s: &State<'_>) -> bool {
    s.get(Value::Efer) & EFER_LME != 0 && s.get(Value::Cr0) & CR0_PG != 0
}
