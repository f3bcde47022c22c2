//! The rules for the host-state area: what exits load.

use super::bits::exit as more;
use super::fields::HOST_PKRS;
use super::state::{MANUAL, Section, State};
use super::values;
use super::values::CACHE_BITS;
use crate::policy::control::{CR4_PAE, CR4_PCIDE};
use crate::vmm::rules::rules;
use crate::vmx::controls::{entry, exit};
use crate::vmx::field::switched_msrs::HOST_PERF_GLOBAL_CTRL;
use crate::vmx::field::*;
use crate::x86::msr::{EFER_LMA, EFER_LME};

/// The rules for control registers and MSRs.
pub const REGISTERS: Section = Section {
    manual: MANUAL,
    number: "27.2.2",
    title: "Checks on Host Control Registers, MSRs, and SSP",
    rules: rules![
        State,
        ("H1", "CR0 of the host has the bits that VMX operation fixes, except for NW and CD.", |s| {
            s.fixed(HOST_CR0, s.facts.capabilities.cr0_fixed, CACHE_BITS)
        }),
        ("H2a", "CR4 of the host has the bits that VMX operation fixes.", |s| {
            s.fixed(HOST_CR4, s.facts.capabilities.cr4_fixed, 0)
        }),
        ("H2b", "CR4.CET of the host needs CR0.WP.", |s| {
            values::cet_needs_write_protection(s, HOST_CR0, HOST_CR4)
        }),
        ("H3", "CR3 of the host is an address in memory.", |s| values::cr3(s, HOST_CR3)),
        ("H4", "IA32_SYSENTER_ESP and IA32_SYSENTER_EIP of the host are canonical.", |s| {
            s.canonical(HOST_SYSENTER_ESP) && s.canonical(HOST_SYSENTER_EIP)
        }),
        ("H5", "IA32_PERF_GLOBAL_CTRL of the host, if loaded, has only bits that exist.", |s| {
            !s.exit(exit::LOAD_PERF_GLOBAL) || s.clear(HOST_PERF_GLOBAL_CTRL, !s.facts.perf_global)
        }),
        ("H6", "Each byte of IA32_PAT of the host, if loaded, is a memory type.", |s| {
            !s.exit(exit::LOAD_PAT) || values::pat(s, HOST_PAT)
        }),
        ("H7a", "IA32_EFER of the host, if loaded, has only bits that exist.", |s| {
            !s.exit(exit::LOAD_EFER) || values::efer(s, HOST_EFER)
        }),
        (
            "H7b",
            "LMA and LME in IA32_EFER of the host, if loaded, are as the host's address-space size.",
            |s| {
                const LONG: u64 = EFER_LMA | EFER_LME;
                let is = if s.exit(exit::HOST_64_BIT) { LONG } else { 0 };
                !s.exit(exit::LOAD_EFER) || s.get(HOST_EFER) & LONG == is
            }
        ),
        (
            "H8a",
            "IA32_S_CET of the host, if loaded, has only bits that exist, not SUPPRESS and TRACKER together, and is canonical.",
            |s| !s.exit(exit::LOAD_CET) || values::s_cet(s, cet::HOST_S_CET)
        ),
        ("H8b", "SSP of the host, if loaded, is canonical, and bits 1:0 are 0.", |s| {
            !s.exit(exit::LOAD_CET) || s.canonical(cet::HOST_SSP) && values::is_aligned_ssp(s, cet::HOST_SSP)
        }),
        ("H8c", "IA32_INTERRUPT_SSP_TABLE_ADDR of the host, if loaded, is canonical.", |s| {
            !s.exit(exit::LOAD_CET) || s.canonical(cet::HOST_INTERRUPT_SSP_TABLE)
        }),
        ("H9", "Bits 63:32 of IA32_PKRS of the host, if loaded, are 0.", |s| {
            !s.exit(more::LOAD_PKRS) || values::pkrs(s, HOST_PKRS)
        }),
    ],
};

/// The rules for segments and descriptor tables.
pub const SEGMENTS: Section = Section {
    manual: MANUAL,
    number: "27.2.3",
    title: "Checks on Host Segment and Descriptor-Table Registers",
    rules: rules![
        State,
        ("H12a", "Bits 2:0 of each selector of the host are 0.", |s| {
            let selectors = [
                HOST_ES_SELECTOR,
                HOST_CS_SELECTOR,
                HOST_SS_SELECTOR,
                HOST_DS_SELECTOR,
                HOST_FS_SELECTOR,
                HOST_GS_SELECTOR,
                HOST_TR_SELECTOR,
            ];
            selectors.into_iter().all(|selector| {
                s.forget();
                s.clear(selector, 7)
            })
        }),
        ("H12b", "The selectors of CS and TR of the host are not 0.", |s| {
            s.get(HOST_CS_SELECTOR) != 0 && s.get(HOST_TR_SELECTOR) != 0
        }),
        ("H12c", "The selector of SS of a 32-bit host is not 0.", |s| {
            s.exit(exit::HOST_64_BIT) || s.get(HOST_SS_SELECTOR) != 0
        }),
        ("H13", "The bases of FS, GS, TR, GDTR and IDTR of the host are canonical.", |s| {
            let bases = [HOST_FS_BASE, HOST_GS_BASE, HOST_TR_BASE, HOST_GDTR_BASE, HOST_IDTR_BASE];
            bases.into_iter().all(|base| {
                s.forget();
                s.canonical(base)
            })
        }),
    ],
};

/// The rules for the address-space size.
pub const ADDRESS_SPACE: Section = Section {
    manual: MANUAL,
    number: "27.2.4",
    title: "Checks Related to Address-Space Size",
    rules: rules![
        State,
        ("H14a", "A CPU in IA-32e mode returns to a 64-bit host.", |s| {
            !s.facts.ia32e || s.get(EXIT_CONTROLS) & u64::from(exit::HOST_64_BIT) != 0
        }),
        ("H14b", "A 64-bit host has CR4.PAE.", |s| {
            !s.exit(exit::HOST_64_BIT) || s.get(HOST_CR4) & CR4_PAE != 0
        }),
        ("H14c", "RIP of a 64-bit host is canonical.", |s| {
            !s.exit(exit::HOST_64_BIT) || s.canonical(HOST_RIP)
        }),
        (
            "H15",
            "A CPU outside of IA-32e mode returns to a 32-bit host, and enters no guest in IA-32e mode.",
            |s| {
                s.facts.ia32e
                    || s.clear(EXIT_CONTROLS, exit::HOST_64_BIT.into())
                        && s.clear(ENTRY_CONTROLS, entry::IA32E_GUEST.into())
            }
        ),
        ("H16", "A 32-bit host does not have CR4.PCIDE, and bits 63:32 of RIP are 0.", |s| {
            s.exit(exit::HOST_64_BIT) || s.clear(HOST_CR4, CR4_PCIDE) && s.clear(HOST_RIP, !0xffff_ffff)
        }),
    ],
};
