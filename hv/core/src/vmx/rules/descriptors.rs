//! The rules for the guest's descriptor-table registers.

use super::state::{MANUAL, Section, State};
use crate::vmm::rules::rules;
use crate::vmx::field::*;

/// The rules of the section.
pub const SECTION: Section = Section {
    manual: MANUAL,
    number: "27.3.1.3",
    title: "Checks on Guest Descriptor-Table Registers",
    rules: rules![
        State,
        ("G36a", "The bases of GDTR and IDTR are canonical.", |s| {
            s.canonical(GUEST_GDTR_BASE) && s.canonical(GUEST_IDTR_BASE)
        }),
        ("G36b", "Bits 31:16 of the limits of GDTR and IDTR are 0.", |s| {
            s.clear(GUEST_GDTR_LIMIT, 0xffff_0000) && s.clear(GUEST_IDTR_LIMIT, 0xffff_0000)
        }),
    ],
};
