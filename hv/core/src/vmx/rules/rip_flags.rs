//! The rules for the guest's RIP, RFLAGS and SSP.

use super::injection::{event, kind};
use super::state::{MANUAL, Section, State};
use super::values;
use crate::policy::control::CR0_PE;
use crate::vmm::rules::rules;
use crate::vmx::controls::entry;
use crate::vmx::field::*;

/// The rules of the section.
pub const SECTION: Section = Section {
    manual: MANUAL,
    number: "27.3.1.4",
    title: "Checks on Guest RIP, RFLAGS, and SSP",
    rules: rules![
        State,
        (
            "G37",
            "Bits 63:32 of RIP are 0 outside of 64-bit code; in it, the bits above a linear address are equal.",
            |s| code_address(s, GUEST_RIP)
        ),
        ("G38a", "Bits 63:22, 15, 5 and 3 of RFLAGS are 0, and bit 1 is 1.", |s| {
            s.get(GUEST_RFLAGS) & (!0x3f_ffff | 1 << 15 | 1 << 5 | 1 << 3 | 1 << 1) == 1 << 1
        }),
        ("G38b", "RFLAGS.VM is 0 in IA-32e mode and in real mode.", |s| {
            s.clear(GUEST_RFLAGS, 1 << 17) || !s.ia32e() && s.get(GUEST_CR0) & CR0_PE != 0
        }),
        ("G38c", "RFLAGS.IF is 1 if an external interrupt is injected.", |s| {
            event(s).is_none_or(|event| {
                event.kind != kind::EXTERNAL_INTERRUPT || s.get(GUEST_RFLAGS) & super::activity::FLAGS_IF != 0
            })
        }),
        ("G39", "SSP, if loaded, has bits 1:0 clear, and is an address as RIP is.", |s| {
            !s.entry(entry::LOAD_CET)
                || values::is_aligned_ssp(s, cet::GUEST_SSP) && code_address(s, cet::GUEST_SSP)
        }),
    ],
};

/// Returns true if the address in `field` suits the mode of the guest's code. In 64-bit code it need not be canonical:
/// the highest bit of a linear address may differ from those above it.
#[inline(never)]
fn code_address(s: &State<'_>, field: Field<Natural, impl Access>) -> bool {
    const CS_L: u32 = 1 << 13;
    if s.ia32e() && s.has(GUEST_CS_RIGHTS, CS_L) {
        s.is_extended(s.get(field), s.facts.linear_bits)
    } else {
        s.clear(field, !0xffff_ffff)
    }
}
