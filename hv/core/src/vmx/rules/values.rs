//! What the values of MSRs must be, alike for the host's and the guest's.

use super::state::State;
use crate::mem::pat::is_valid;
use crate::policy::control::{CR0_CD, CR0_NW, CR0_WP, CR4_CET};
use crate::vmx::field::{Access, Field, Natural};
use crate::x86::msr::{EFER_LMA, EFER_LME, EFER_NXE, EFER_SCE};

/// CR0.NW and CR0.CD, which VM entry neither checks nor loads.
pub const CACHE_BITS: u64 = CR0_NW | CR0_CD;
/// The bits of CR3 that linear-address masking has.
const CR3_LAM: u64 = 3 << 61;

/// Returns true if CR4.CET is 0 or CR0.WP is 1.
pub fn cet_needs_write_protection(
    s: &State<'_>,
    cr0: Field<Natural, impl Access>,
    cr4: Field<Natural, impl Access>,
) -> bool {
    s.get(cr4) & CR4_CET == 0 || s.get(cr0) & CR0_WP != 0
}

/// Returns true if the value of CR3 in `field` is an address in memory, with the bits of features that the CPU has.
#[inline(never)]
pub fn cr3(s: &State<'_>, field: Field<Natural, impl Access>) -> bool {
    let beyond = u64::MAX << s.facts.address_bits.min(63);
    s.clear(field, beyond & !if s.facts.lam { CR3_LAM } else { 0 })
}

/// Returns true if each byte of the PAT in `field` is a memory type.
pub fn pat(s: &State<'_>, field: Field<u64, impl Access>) -> bool {
    is_valid(s.get(field))
}

/// Returns true if `field` has only bits of IA32_EFER that exist.
pub fn efer(s: &State<'_>, field: Field<u64, impl Access>) -> bool {
    s.clear(field, !(EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE))
}

/// Returns true if the value of IA32_S_CET in `field` could be written by WRMSR.
#[inline(never)]
pub fn s_cet(s: &State<'_>, field: Field<Natural, impl Access>) -> bool {
    const RESERVED: u64 = 0xf << 6;
    /// SUPPRESS and TRACKER.
    const STATES: u64 = 3 << 10;
    let value = s.get(field);
    value & RESERVED == 0 && value & STATES != STATES && s.is_canonical(value)
}

/// Returns true if the shadow-stack pointer in `field` has bits 1:0 clear.
pub fn is_aligned_ssp(s: &State<'_>, field: Field<Natural, impl Access>) -> bool {
    s.clear(field, 3)
}

/// Returns true if `field` has only bits of IA32_PKRS that exist.
pub fn pkrs(s: &State<'_>, field: Field<u64, impl Access>) -> bool {
    s.clear(field, !0xffff_ffff)
}
