//! The rules for the guest's descriptor-table registers.

use super::state::{MANUAL, Rule, Section};
use crate::vmx::field::*;

/// The rules of the section.
pub const SECTION: Section = Section {
    manual: MANUAL,
    number: "27.3.1.3",
    title: "Checks on Guest Descriptor-Table Registers",
    rules: &[
        Rule {
            id: "G36a",
            says: "The bases of GDTR and IDTR are canonical.",
            holds: |s| s.canonical(GUEST_GDTR_BASE) && s.canonical(GUEST_IDTR_BASE),
        },
        Rule {
            id: "G36b",
            says: "Bits 31:16 of the limits of GDTR and IDTR are 0.",
            holds: |s| s.clear(GUEST_GDTR_LIMIT, 0xffff_0000) && s.clear(GUEST_IDTR_LIMIT, 0xffff_0000),
        },
    ],
};
