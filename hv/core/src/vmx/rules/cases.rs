//! For each rule of VM entry at least one change of a valid state that breaks it alone. They are not in the image: the
//! tests make them, and the trial of the rules on a CPU.

use super::change::*;
use super::fields::*;
use crate::policy::control::{CR0_NE, CR0_PE, CR0_PG, CR0_WP, CR4_CET, CR4_PAE, CR4_PCIDE};
use crate::vmx::controls::primary;
use crate::vmx::field::switched_msrs::{GUEST_BNDCFGS, GUEST_PERF_GLOBAL_CTRL, HOST_PERF_GLOBAL_CTRL};
use crate::vmx::field::*;

/// An address that is not canonical with 48 bits, nor with 57.
const NOT_CANONICAL: u64 = 1 << 60;

/// The cases. On a CPU that lacks what a case turns on, it breaks other rules as well.
pub static CASES: &[Case] = &[
    ("C1", |m| m.or(PIN_BASED_CONTROLS, 1 << 31)),
    ("C2", |m| m.clear(PRIMARY_CONTROLS, 1 << 1)),
    ("C3", |m| m.or(SECONDARY_CONTROLS, 1 << 31)),
    ("C4", |m| {
        m.or(PRIMARY_CONTROLS, TERTIARY);
        m.set(TERTIARY_CONTROLS, 1 << 63);
    }),
    ("C5", |m| m.set(CR3_TARGET_COUNT, 5)),
    ("C6", |m| {
        m.or(PRIMARY_CONTROLS, primary::IO_BITMAPS.into());
        m.set(IO_BITMAP_A, 0x1000);
        m.set(IO_BITMAP_B, 0x1001);
    }),
    ("C7", |m| m.or(MSR_BITMAP, 1)),
    ("C7", |m| m.or(MSR_BITMAP, m.beyond)),
    ("C8", |m| {
        shadow(m);
        m.or(VIRTUAL_APIC_ADDRESS, 0x10);
    }),
    ("C9a", |m| {
        shadow(m);
        m.set(TPR_THRESHOLD, 0x10);
    }),
    ("C9b", |m| {
        shadow(m);
        m.set(TPR_THRESHOLD, 3);
        m.store(0xa080, 0x2f);
    }),
    ("C10a", |m| {
        m.or(PIN_BASED_CONTROLS, 1 << 5);
        m.clear(PIN_BASED_CONTROLS, 1 << 3);
    }),
    ("C10b", |m| m.or(PRIMARY_CONTROLS, 1 << 22)),
    ("C11", |m| paged(m, 0, APIC_ACCESS_ADDRESS, 0xfee0_0010)),
    ("C12", |m| m.or(SECONDARY_CONTROLS, 1 << 8)),
    ("C13", |m| {
        shadow(m);
        paged(m, 0, APIC_ACCESS_ADDRESS, 0xfee0_0000);
        m.or(SECONDARY_CONTROLS, 1 << 4);
    }),
    ("C14", |m| {
        deliver(m);
        m.clear(PIN_BASED_CONTROLS, 1);
    }),
    ("C15a", |m| {
        post(m);
        m.clear(EXIT_CONTROLS, 1 << 15);
    }),
    ("C15a", |m| {
        post(m);
        m.clear(SECONDARY_CONTROLS, 1 << 9);
    }),
    ("C15b", |m| {
        post(m);
        m.or(POSTED_INTERRUPT_DESCRIPTOR, 0x20);
    }),
    ("C15b", |m| {
        post(m);
        m.or(POSTED_INTERRUPT_VECTOR, 0x100);
    }),
    ("C16", |m| m.set(VPID, 0)),
    ("C17a", |m| m.set(EPT_POINTER, 0x701d)),
    ("C17b", |m| m.set(EPT_POINTER, 0x700e)),
    ("C17c", |m| m.or(EPT_POINTER, 1 << 8)),
    ("C17c", |m| m.or(EPT_POINTER, m.beyond)),
    ("C18a", |m| m.clear(SECONDARY_CONTROLS, EPT)),
    ("C18b", |m| {
        restrict(m);
        m.clear(SECONDARY_CONTROLS, EPT);
        m.or(PRIMARY_CONTROLS, TERTIARY);
        m.set(TERTIARY_CONTROLS, 1 << 2);
    }),
    ("C19", |m| paged(m, 17, PML_ADDRESS, 0x10)),
    ("C19", |m| paged(m, 23, SUB_PAGE_TABLE, 0x10)),
    ("C19", |m| paged(m, 18, VE_INFORMATION, m.beyond)),
    ("C19", |m| {
        paged(m, 14, VMREAD_BITMAP, 0x1000);
        paged(m, 14, VMWRITE_BITMAP, 0x10);
    }),
    ("C20a", |m| paged(m, 13, VM_FUNCTION_CONTROLS, 1 << 40)),
    ("C20b", |m| {
        paged(m, 13, VM_FUNCTION_CONTROLS, 1);
        m.set(EPTP_LIST, 8);
    }),
    ("C20b", |m| {
        restrict(m);
        m.clear(SECONDARY_CONTROLS, EPT);
        paged(m, 13, VM_FUNCTION_CONTROLS, 1);
        m.set(EPTP_LIST, 0x1000);
    }),
    ("C21", |m| paged(m, 25, TSC_MULTIPLIER, 0)),
    ("C28a", |m| m.clear(EXIT_CONTROLS, 1)),
    ("C29", |m| {
        m.clear(PIN_BASED_CONTROLS, 1 << 6);
        m.or(EXIT_CONTROLS, 1 << 22);
    }),
    ("C30a", |m| {
        m.set(EXIT_MSR_STORE_COUNT, 1);
        m.set(EXIT_MSR_STORE_ADDRESS, 8);
    }),
    ("C30a", |m| {
        m.set(EXIT_MSR_LOAD_COUNT, 2);
        m.set(EXIT_MSR_LOAD_ADDRESS, m.beyond - 16);
    }),
    ("C30b", |m| {
        m.set(ENTRY_MSR_LOAD_COUNT, 0xffff_ffff);
        m.set(ENTRY_MSR_LOAD_ADDRESS, !0xf);
    }),
    ("C31a", |m| m.clear(ENTRY_CONTROLS, 1)),
    ("C31b", |m| m.or(ENTRY_CONTROLS, 1 << 11)),
    ("C32", |m| inject(m, 0x8000_0120)),
    ("C33", |m| inject(m, 0x8000_0203)),
    ("C33", |m| inject(m, 0x8000_0320)),
    ("C34", |m| inject(m, 0x8000_030d)),
    ("C34", |m| inject(m, 0x8000_0b06)),
    ("C34", |m| {
        m.or(GUEST_RFLAGS, 1 << 9);
        inject(m, 0x8000_0820);
    }),
    ("C34", |m| {
        m.clear(GUEST_CR0, CR0_PE);
        inject(m, 0x8000_0b0d);
    }),
    ("C35", |m| inject(m, 0x8000_2202)),
    ("C36", |m| {
        inject(m, 0x8000_0b0d);
        m.set(ENTRY_EXCEPTION_ERROR_CODE, 0x1_0000);
    }),
    ("C37", |m| {
        inject(m, 0x8000_0421);
        m.set(ENTRY_INSTRUCTION_LENGTH, 16);
    }),
    ("C37", |m| inject(m, 0x8000_0603)),
    ("H1", |m| m.clear(HOST_CR0, CR0_NE)),
    ("H2a", |m| m.clear(HOST_CR4, 1 << 13)),
    ("H2b", |m| {
        m.clear(HOST_CR0, CR0_WP);
        m.or(HOST_CR4, CR4_CET);
    }),
    ("H3", |m| m.or(HOST_CR3, m.beyond)),
    ("H3", |m| m.or(HOST_CR3, 1 << 61)),
    ("H4", |m| m.set(HOST_SYSENTER_EIP, NOT_CANONICAL)),
    ("H5", |m| m.set(HOST_PERF_GLOBAL_CTRL, 1 << 63)),
    ("H6", |m| m.set(HOST_PAT, 2 << 56)),
    ("H7a", |m| m.or(HOST_EFER, 2)),
    ("H7b", |m| m.clear(HOST_EFER, 1 << 8)),
    ("H8a", |m| m.set(cet::HOST_S_CET, 3 << 10)),
    ("H8a", |m| m.set(cet::HOST_S_CET, 1 << 6)),
    ("H8b", |m| m.set(cet::HOST_SSP, 2)),
    ("H8c", |m| m.set(cet::HOST_INTERRUPT_SSP_TABLE, NOT_CANONICAL)),
    ("H9", |m| {
        m.or(EXIT_CONTROLS, 1 << 29);
        m.set(HOST_PKRS, 1 << 32);
    }),
    ("H12a", |m| m.or(HOST_DS_SELECTOR, 3)),
    ("H12b", |m| m.set(HOST_TR_SELECTOR, 0)),
    ("H12b", |m| m.set(HOST_CS_SELECTOR, 0)),
    ("H13", |m| m.set(HOST_IDTR_BASE, NOT_CANONICAL)),
    ("H14a", host_32),
    ("H14b", |m| m.clear(HOST_CR4, CR4_PAE)),
    ("H14c", |m| m.set(HOST_RIP, NOT_CANONICAL)),
    ("G1a", |m| m.clear(GUEST_CR0, CR0_NE)),
    ("G1a", |m| {
        m.clear(SECONDARY_CONTROLS, UNRESTRICTED);
        m.clear(GUEST_CR0, CR0_PG);
    }),
    ("G1b", |m| {
        m.or(GUEST_CR0, CR0_PG);
        m.clear(GUEST_CR0, CR0_PE);
    }),
    ("G2a", |m| m.or(GUEST_CR4, 1 << 15)),
    ("G2b", |m| m.or(GUEST_CR4, CR4_CET)),
    ("G3", |m| {
        m.long_mode();
        m.clear(GUEST_CR0, CR0_PG);
    }),
    ("G3", |m| {
        m.long_mode();
        m.clear(GUEST_CR4, CR4_PAE);
    }),
    ("G4", |m| m.or(GUEST_CR4, CR4_PCIDE)),
    ("G5", |m| m.or(GUEST_CR3, m.beyond)),
    ("G6", |m| m.or(GUEST_DR7, 1 << 40)),
    ("G7", |m| m.set(GUEST_DEBUGCTL, 1 << 30)),
    ("G8", |m| m.set(GUEST_SYSENTER_ESP, NOT_CANONICAL)),
    ("G9a", |m| m.set(GUEST_PERF_GLOBAL_CTRL, 1 << 63)),
    ("G9b", |m| m.set(GUEST_PAT, 3)),
    ("G9c", |m| m.or(GUEST_EFER, 1 << 12)),
    ("G9d", |m| m.set(GUEST_EFER, 1 << 10)),
    ("G9d", |m| {
        m.long_mode();
        m.set(GUEST_EFER, 1 << 10);
    }),
    ("G10", |m| m.set(GUEST_BNDCFGS, 4)),
    ("G10", |m| m.set(GUEST_BNDCFGS, NOT_CANONICAL)),
    ("G13a", |m| m.set(cet::GUEST_S_CET, 3 << 10)),
    ("G13b", |m| m.set(cet::GUEST_INTERRUPT_SSP_TABLE, NOT_CANONICAL)),
    ("G14", |m| {
        m.or(ENTRY_CONTROLS, 1 << 22);
        m.set(GUEST_PKRS, 1 << 32);
    }),
    ("G18", |m| m.or(GUEST_TR_SELECTOR, 4)),
    ("G19", |m| {
        restrict(m);
        conforming(m);
        m.or(GUEST_CS_SELECTOR, 3);
    }),
    ("G20a", |m| {
        virtual_8086(m);
        m.set(GUEST_GS_BASE, 0x1240);
    }),
    ("G20b", |m| {
        virtual_8086(m);
        m.set(GUEST_GS_LIMIT, 0xfffe);
    }),
    ("G20c", |m| {
        virtual_8086(m);
        m.set(GUEST_SS_RIGHTS, 0x93);
    }),
    ("G21a", |m| m.set(GUEST_FS_BASE, NOT_CANONICAL)),
    ("G21a", |m| {
        m.or(GUEST_GS_RIGHTS, 1 << 16);
        m.set(GUEST_GS_BASE, NOT_CANONICAL);
    }),
    ("G21b", |m| m.set(GUEST_ES_BASE, 1 << 32)),
    ("G22", |m| m.set(GUEST_CS_RIGHTS, 0xc091)),
    ("G22", |m| {
        restrict(m);
        m.set(GUEST_CS_RIGHTS, 0xc093);
    }),
    ("G23", |m| m.set(GUEST_SS_RIGHTS, 0xc091)),
    ("G24", |m| m.set(GUEST_DS_RIGHTS, 0xc092)),
    ("G24", |m| m.set(GUEST_GS_RIGHTS, 0xc099)),
    ("G25", |m| m.set(GUEST_CS_RIGHTS, 0xc08b)),
    ("G26", |m| m.set(GUEST_CS_RIGHTS, 0xc0fb)),
    ("G26", |m| m.set(GUEST_CS_RIGHTS, 0xc0ff)),
    ("G26", |m| {
        m.or(GUEST_CS_SELECTOR, 3);
        m.set(GUEST_CS_RIGHTS, 0xc0fb);
    }),
    ("G27a", |m| {
        restrict(m);
        conforming(m);
        m.or(GUEST_CS_SELECTOR, 3);
        m.or(GUEST_SS_SELECTOR, 3);
    }),
    ("G27b", |m| {
        m.clear(GUEST_CR0, CR0_PE);
        m.set(GUEST_SS_RIGHTS, 0xc0f3);
        conforming(m);
    }),
    ("G27b", |m| {
        m.set(GUEST_SS_RIGHTS, 0xc0f3);
        m.set(GUEST_CS_RIGHTS, 0xc093);
    }),
    ("G28", |m| {
        restrict(m);
        m.or(GUEST_DS_SELECTOR, 3);
    }),
    ("G29", |m| m.set(GUEST_TR_RIGHTS, 0x0b)),
    ("G29", |m| m.set(GUEST_FS_RIGHTS, 0xc013)),
    ("G30", |m| m.or(GUEST_CS_RIGHTS, 1 << 8)),
    ("G30", |m| m.or(GUEST_TR_RIGHTS, 1 << 17)),
    ("G31", |m| {
        m.long_mode();
        m.or(GUEST_CS_RIGHTS, 1 << 14);
    }),
    ("G32", |m| m.set(GUEST_CS_LIMIT, 0xffff_f000)),
    ("G32", |m| m.clear(GUEST_SS_RIGHTS, 1 << 15)),
    ("G33", |m| m.or(GUEST_TR_RIGHTS, 1 << 16)),
    ("G33", |m| m.set(GUEST_TR_RIGHTS, 0x89)),
    ("G33", |m| {
        m.long_mode();
        m.set(GUEST_TR_RIGHTS, 0x83);
    }),
    ("G34", |m| m.set(GUEST_LDTR_RIGHTS, 0x8b)),
    ("G36a", |m| m.set(GUEST_GDTR_BASE, NOT_CANONICAL)),
    ("G36b", |m| m.set(GUEST_IDTR_LIMIT, 0x1_0000)),
    ("G37", |m| m.set(GUEST_RIP, 1 << 32)),
    ("G37", |m| {
        m.long_mode();
        m.set(GUEST_RIP, NOT_CANONICAL);
    }),
    ("G38a", |m| m.clear(GUEST_RFLAGS, 1 << 1)),
    ("G38a", |m| m.or(GUEST_RFLAGS, 1 << 15)),
    ("G38b", |m| {
        virtual_8086(m);
        m.clear(GUEST_CR0, CR0_PE);
    }),
    ("G38c", |m| inject(m, 0x8000_0020)),
    ("G39", |m| m.set(cet::GUEST_SSP, 2)),
    ("G39", |m| m.set(cet::GUEST_SSP, 1 << 32)),
    ("G40a", |m| m.set(GUEST_ACTIVITY_STATE, 4)),
    ("G40b", |m| {
        m.set(GUEST_ACTIVITY_STATE, 1);
        m.set(GUEST_SS_RIGHTS, 0xc0f3);
        conforming(m);
    }),
    ("G40c", |m| {
        m.set(GUEST_ACTIVITY_STATE, 2);
        m.set(GUEST_INTERRUPTIBILITY, 2);
    }),
    ("G41a", |m| {
        m.set(GUEST_ACTIVITY_STATE, 1);
        inject(m, 0x8000_0300);
    }),
    ("G41a", |m| {
        m.set(GUEST_ACTIVITY_STATE, 3);
        inject(m, 0x8000_0202);
    }),
    ("G42a", |m| m.set(GUEST_INTERRUPTIBILITY, 0x20)),
    ("G42b", |m| {
        m.or(GUEST_RFLAGS, 1 << 9);
        m.set(GUEST_INTERRUPTIBILITY, 3);
    }),
    ("G42c", |m| m.set(GUEST_INTERRUPTIBILITY, 1)),
    ("G42d", |m| {
        m.or(GUEST_RFLAGS, 1 << 9);
        m.set(GUEST_INTERRUPTIBILITY, 1);
        inject(m, 0x8000_0020);
    }),
    ("G42e", |m| {
        m.set(GUEST_INTERRUPTIBILITY, 2);
        inject(m, 0x8000_0202);
    }),
    ("G42f", |m| m.set(GUEST_INTERRUPTIBILITY, 4)),
    ("G42g", |m| {
        m.or(PIN_BASED_CONTROLS, 1 << 5 | 1 << 3);
        m.set(GUEST_INTERRUPTIBILITY, 8);
        inject(m, 0x8000_0202);
    }),
    ("G42h", |m| m.set(GUEST_INTERRUPTIBILITY, 0x10)),
    ("G43a", |m| m.set(GUEST_PENDING_DEBUG, 0x20)),
    ("G43a", |m| m.set(GUEST_PENDING_DEBUG, 1 << 40)),
    ("G43a", |m| m.set(GUEST_PENDING_DEBUG, 1 << 11)),
    ("G43b", |m| {
        m.or(GUEST_RFLAGS, 0x300);
        m.set(GUEST_INTERRUPTIBILITY, 1);
    }),
    ("G43b", |m| {
        m.set(GUEST_ACTIVITY_STATE, 1);
        m.set(GUEST_PENDING_DEBUG, 1 << 14);
    }),
    ("G43c", |m| m.set(GUEST_PENDING_DEBUG, 1 << 16 | 1 << 12)),
    ("G44a", |m| m.set(VMCS_LINK_POINTER, 0x123)),
    ("G44b", |m| {
        m.set(VMCS_LINK_POINTER, 0xc000);
        m.store(0xc000, 0x13);
    }),
    ("G44c", |m| m.set(VMCS_LINK_POINTER, m.vmcs.0)),
    ("G45", |m| pae(m, 3)),
    ("G45", |m| pae(m, m.beyond | 1)),
    ("M1", |m| load_msr(m, 0xc000_0100, 0)),
    ("M1", |m| load_msr(m, 0x10, 1)),
];

/// Changes that break no rule, with what they are. Emulators may think otherwise.
pub static LEGAL: &[Case] = &[
    ("nothing", |_| {}),
    ("CS.RPL 3 with CS.DPL 0, unrestricted guest", |m| m.or(GUEST_CS_SELECTOR, 3)),
    ("DS.RPL 3 with DS.DPL 0, unrestricted guest", |m| m.or(GUEST_DS_SELECTOR, 3)),
    ("64-bit mode", |m| m.long_mode()),
    ("64-bit mode, RIP with bit 47 alone", |m| {
        m.long_mode();
        m.set(GUEST_RIP, 1 << 47);
    }),
    ("virtual-8086 mode", virtual_8086),
    ("NMI", |m| inject(m, 0x8000_0202)),
    ("HLT", |m| m.set(GUEST_ACTIVITY_STATE, 1)),
    ("STI with a pending single step", |m| {
        m.or(GUEST_RFLAGS, 0x300);
        m.set(GUEST_INTERRUPTIBILITY, 1);
        m.set(GUEST_PENDING_DEBUG, 1 << 14);
    }),
    ("a limit with G and a limit without", |m| {
        m.set(GUEST_DS_LIMIT, 0xffff);
        m.set(GUEST_DS_RIGHTS, 0x4093);
    }),
];
