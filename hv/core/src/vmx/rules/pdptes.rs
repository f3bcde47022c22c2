//! The rule for the guest's page-directory-pointer-table entries.

use super::state::{MANUAL, Section, State};
use crate::policy::control::{CR0_PG, CR4_PAE};
use crate::vmm::rules::rules;
use crate::vmx::controls::secondary;
use crate::vmx::field::*;

/// The rule of the section.
pub const SECTION: Section = Section {
    manual: MANUAL,
    number: "27.3.1.6",
    title: "Checks on Guest Page-Directory-Pointer-Table Entries",
    rules: rules![
        State,
        (
            "G45",
            "Each present entry of PAE paging has bits 2:1 and 8:5 clear, and an address in memory.",
            |s| {
                const FIELDS: [Field<u64>; 4] = [GUEST_PDPTE0, GUEST_PDPTE1, GUEST_PDPTE2, GUEST_PDPTE3];
                let is_pae =
                    !s.ia32e() && s.peek(GUEST_CR0) & CR0_PG != 0 && s.peek(GUEST_CR4) & CR4_PAE != 0;
                let in_fields = s.secondary(secondary::EPT);
                !is_pae
                    || (0..).zip(FIELDS).all(|(index, field)| {
                        s.forget();
                        let entry = if in_fields { Some(s.get(field)) } else { in_memory(s, index) };
                        entry.is_none_or(|entry| is_valid(s, entry))
                    })
            }
        ),
    ],
};

/// Returns the entry with this index in the table at CR3, or `None` if it cannot be read.
fn in_memory(s: &State<'_>, index: u64) -> Option<u64> {
    let address = (s.peek(GUEST_CR3) & 0xffff_ffe0) + index * 8;
    let (low, high) = (s.memory(address)?, s.memory(address + 4)?);
    Some(u64::from(low) | u64::from(high) << 32)
}

/// Returns true if `entry` is not present, or has no reserved bit set.
fn is_valid(s: &State<'_>, entry: u64) -> bool {
    const RESERVED: u64 = 0b11 << 1 | 0b1111 << 5;
    let beyond = u64::MAX << s.facts.address_bits.min(63);
    entry & 1 == 0 || entry & (RESERVED | beyond) == 0
}
