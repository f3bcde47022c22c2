//! The rules for the guest's control registers, debug registers and MSRs.

use super::bits::entry as more;
use super::fields::GUEST_PKRS;
use super::state::{MANUAL, Section, State};
use super::values;
use super::values::CACHE_BITS;
use crate::policy::control::{CR0_PE, CR0_PG, CR4_PAE, CR4_PCIDE};
use crate::vmm::rules::rules;
use crate::vmx::controls::entry;
use crate::vmx::field::switched_msrs::{GUEST_BNDCFGS, GUEST_PERF_GLOBAL_CTRL};
use crate::vmx::field::*;
use crate::x86::msr::{EFER_LMA, EFER_LME};

/// The rules of the section.
pub const SECTION: Section = Section {
    manual: MANUAL,
    number: "27.3.1.1",
    title: "Checks on Guest Control Registers, Debug Registers, and MSRs",
    rules: rules![
        State,
        (
            "G1a",
            "CR0 has the bits that VMX operation fixes, except for NW and CD, and for PE and PG of an unrestricted guest.",
            |s| {
                let free = if s.unrestricted() { CR0_PG | CR0_PE } else { 0 };
                s.fixed(GUEST_CR0, s.facts.capabilities.cr0_fixed, CACHE_BITS | free)
            }
        ),
        ("G1b", "CR0.PG needs CR0.PE.", |s| s.get(GUEST_CR0) & (CR0_PG | CR0_PE) != CR0_PG),
        ("G2a", "CR4 has the bits that VMX operation fixes.", |s| {
            s.fixed(GUEST_CR4, s.facts.capabilities.cr4_fixed, 0)
        }),
        ("G2b", "CR4.CET needs CR0.WP.", |s| values::cet_needs_write_protection(s, GUEST_CR0, GUEST_CR4)),
        ("G3", "A guest in IA-32e mode has CR0.PG and CR4.PAE.", |s| {
            !s.ia32e() || s.get(GUEST_CR0) & CR0_PG != 0 && s.get(GUEST_CR4) & CR4_PAE != 0
        }),
        ("G4", "A guest outside of IA-32e mode does not have CR4.PCIDE.", |s| {
            s.ia32e() || s.clear(GUEST_CR4, CR4_PCIDE)
        }),
        ("G5", "CR3 is an address in memory.", |s| values::cr3(s, GUEST_CR3)),
        ("G6", "Bits 63:32 of DR7, if loaded, are 0.", |s| {
            !s.entry(entry::LOAD_DEBUG) || s.clear(GUEST_DR7, !0xffff_ffff)
        }),
        ("G7", "IA32_DEBUGCTL, if loaded, has only bits that exist.", |s| {
            !s.entry(entry::LOAD_DEBUG) || s.clear(GUEST_DEBUGCTL, !0xffc7)
        }),
        ("G8", "IA32_SYSENTER_ESP and IA32_SYSENTER_EIP are canonical.", |s| {
            s.canonical(GUEST_SYSENTER_ESP) && s.canonical(GUEST_SYSENTER_EIP)
        }),
        ("G9a", "IA32_PERF_GLOBAL_CTRL, if loaded, has only bits that exist.", |s| {
            !s.entry(entry::LOAD_PERF_GLOBAL) || s.clear(GUEST_PERF_GLOBAL_CTRL, !s.facts.perf_global)
        }),
        ("G9b", "Each byte of IA32_PAT, if loaded, is a memory type.", |s| {
            !s.entry(entry::LOAD_PAT) || values::pat(s, GUEST_PAT)
        }),
        ("G9c", "IA32_EFER, if loaded, has only bits that exist.", |s| {
            !s.entry(entry::LOAD_EFER) || values::efer(s, GUEST_EFER)
        }),
        ("G9d", "EFER.LMA, if loaded, is 1 in IA-32e mode alone, and equals LME if CR0.PG is 1.", |s| {
            let efer = s.get(GUEST_EFER);
            let (active, enabled) = (efer & EFER_LMA != 0, efer & EFER_LME != 0);
            !s.entry(entry::LOAD_EFER)
                || active == s.ia32e() && (active == enabled || s.get(GUEST_CR0) & CR0_PG == 0)
        }),
        ("G10", "IA32_BNDCFGS, if loaded, is canonical, and bits 11:2 are 0.", |s| {
            !s.entry(entry::LOAD_BNDCFGS)
                || s.clear(GUEST_BNDCFGS, 0xffc) && s.is_canonical(s.peek(GUEST_BNDCFGS))
        }),
        (
            "G13a",
            "IA32_S_CET, if loaded, has only bits that exist, not SUPPRESS and TRACKER together, and is canonical.",
            |s| !s.entry(entry::LOAD_CET) || values::s_cet(s, cet::GUEST_S_CET)
        ),
        ("G13b", "IA32_INTERRUPT_SSP_TABLE_ADDR, if loaded, is canonical.", |s| {
            !s.entry(entry::LOAD_CET) || s.canonical(cet::GUEST_INTERRUPT_SSP_TABLE)
        }),
        ("G14", "Bits 63:32 of IA32_PKRS, if loaded, are 0.", |s| {
            !s.entry(more::LOAD_PKRS) || values::pkrs(s, GUEST_PKRS)
        }),
    ],
};
