//! The rules for the guest's control registers, debug registers and MSRs.

use super::bits::entry as more;
use super::fields::GUEST_PKRS;
use super::state::{MANUAL, Rule, Section};
use super::values;
use super::values::CACHE_BITS;
use crate::policy::control::{CR0_PE, CR0_PG, CR4_PAE, CR4_PCIDE};
use crate::vmx::controls::entry;
use crate::vmx::field::put_away::{GUEST_BNDCFGS, GUEST_PERF_GLOBAL_CTRL};
use crate::vmx::field::*;
use crate::x86::msr::{EFER_LMA, EFER_LME};

/// The rules of the section.
pub const SECTION: Section = Section {
    manual: MANUAL,
    number: "27.3.1.1",
    title: "Checks on Guest Control Registers, Debug Registers, and MSRs",
    rules: &[
        Rule {
            id: "G1a",
            says: "CR0 has the bits that VMX operation fixes, except for NW and CD, and for PE and PG of an unrestricted guest.",
            holds: |s| {
                let free = if s.unrestricted() { CR0_PG | CR0_PE } else { 0 };
                s.fixed(GUEST_CR0, s.facts.capabilities.cr0_fixed, CACHE_BITS | free)
            },
        },
        Rule {
            id: "G1b",
            says: "CR0.PG needs CR0.PE.",
            holds: |s| s.get(GUEST_CR0) & (CR0_PG | CR0_PE) != CR0_PG,
        },
        Rule {
            id: "G2a",
            says: "CR4 has the bits that VMX operation fixes.",
            holds: |s| s.fixed(GUEST_CR4, s.facts.capabilities.cr4_fixed, 0),
        },
        Rule {
            id: "G2b",
            says: "CR4.CET needs CR0.WP.",
            holds: |s| values::cet_needs_write_protection(s, GUEST_CR0, GUEST_CR4),
        },
        Rule {
            id: "G3",
            says: "A guest in IA-32e mode has CR0.PG and CR4.PAE.",
            holds: |s| !s.ia32e() || s.get(GUEST_CR0) & CR0_PG != 0 && s.get(GUEST_CR4) & CR4_PAE != 0,
        },
        Rule {
            id: "G4",
            says: "A guest outside of IA-32e mode does not have CR4.PCIDE.",
            holds: |s| s.ia32e() || s.clear(GUEST_CR4, CR4_PCIDE),
        },
        Rule { id: "G5", says: "CR3 is an address in memory.", holds: |s| values::cr3(s, GUEST_CR3) },
        Rule {
            id: "G6",
            says: "Bits 63:32 of DR7, if loaded, are 0.",
            holds: |s| !s.entry(entry::LOAD_DEBUG) || s.clear(GUEST_DR7, !0xffff_ffff),
        },
        Rule {
            id: "G7",
            says: "IA32_DEBUGCTL, if loaded, has only bits that exist.",
            holds: |s| !s.entry(entry::LOAD_DEBUG) || s.clear(GUEST_DEBUGCTL, !0xffc7),
        },
        Rule {
            id: "G8",
            says: "IA32_SYSENTER_ESP and IA32_SYSENTER_EIP are canonical.",
            holds: |s| s.canonical(GUEST_SYSENTER_ESP) && s.canonical(GUEST_SYSENTER_EIP),
        },
        Rule {
            id: "G9a",
            says: "IA32_PERF_GLOBAL_CTRL, if loaded, has only bits that exist.",
            holds: |s| {
                !s.entry(entry::LOAD_PERF_GLOBAL) || s.clear(GUEST_PERF_GLOBAL_CTRL, !s.facts.perf_global)
            },
        },
        Rule {
            id: "G9b",
            says: "Each byte of IA32_PAT, if loaded, is a memory type.",
            holds: |s| !s.entry(entry::LOAD_PAT) || values::pat(s, GUEST_PAT),
        },
        Rule {
            id: "G9c",
            says: "IA32_EFER, if loaded, has only bits that exist.",
            holds: |s| !s.entry(entry::LOAD_EFER) || values::efer(s, GUEST_EFER),
        },
        Rule {
            id: "G9d",
            says: "EFER.LMA, if loaded, is 1 in IA-32e mode alone, and equals LME if CR0.PG is 1.",
            holds: |s| {
                if !s.entry(entry::LOAD_EFER) {
                    return true;
                }
                let efer = s.get(GUEST_EFER);
                let (active, enabled) = (efer & EFER_LMA != 0, efer & EFER_LME != 0);
                active == s.ia32e() && (active == enabled || s.get(GUEST_CR0) & CR0_PG == 0)
            },
        },
        Rule {
            id: "G10",
            says: "IA32_BNDCFGS, if loaded, is canonical, and bits 11:2 are 0.",
            holds: |s| {
                !s.entry(entry::LOAD_BNDCFGS)
                    || s.clear(GUEST_BNDCFGS, 0xffc) && s.is_canonical(s.peek(GUEST_BNDCFGS))
            },
        },
        Rule {
            id: "G13a",
            says: "IA32_S_CET, if loaded, has only bits that exist, not SUPPRESS and TRACKER together, and is canonical.",
            holds: |s| !s.entry(entry::LOAD_CET) || values::s_cet(s, cet::GUEST_S_CET),
        },
        Rule {
            id: "G13b",
            says: "IA32_INTERRUPT_SSP_TABLE_ADDR, if loaded, is canonical.",
            holds: |s| !s.entry(entry::LOAD_CET) || s.canonical(cet::GUEST_INTERRUPT_SSP_TABLE),
        },
        Rule {
            id: "G14",
            says: "Bits 63:32 of IA32_PKRS, if loaded, are 0.",
            holds: |s| !s.entry(more::LOAD_PKRS) || values::pkrs(s, GUEST_PKRS),
        },
    ],
};
