//! The rules for the guest's state other than registers.

use super::bits::{entry, pin, secondary};
use super::fields::key;
use super::injection::{Event, event, kind};
use super::state::{MANUAL, Rule, Section, State};
use crate::vmx::event::interruptibility::{MOV_SS, NMI, STI};
use crate::vmx::event::{PENDING_SINGLE_STEP, activity};
use crate::vmx::field::*;

/// RFLAGS.IF.
pub const FLAGS_IF: u64 = 1 << 9;
/// RFLAGS.TF.
const FLAGS_TF: u64 = 1 << 8;
/// IA32_DEBUGCTL.BTF.
const BRANCH_STEP: u64 = 1 << 1;

/// The activity state HLT.
const HLT: u64 = 1;
/// The activity state shutdown.
const SHUTDOWN: u64 = 2;
/// The activity state wait-for-SIPI.
const WAIT_FOR_SIPI: u64 = activity::WAIT_FOR_SIPI as u64;

/// Blocking by STI and by MOV SS.
const SHADOW: u64 = (STI | MOV_SS) as u64;
/// Blocking by SMI.
const SMI: u64 = 1 << 2;
/// The exit interrupted an enclave.
const ENCLAVE: u64 = 1 << 4;

/// The bit of pending debug exceptions that says there are any.
const PENDING_ENABLED: u64 = 1 << 12;
/// The bit of pending debug exceptions for transactional memory.
const PENDING_RTM: u64 = 1 << 16;

/// The VMCS link pointer that means no VMCS.
const NO_LINK: u64 = u64::MAX;

/// The rules of the section.
pub const SECTION: Section =
    Section { manual: MANUAL, number: "27.3.1.5", title: "Checks on Guest Non-Register State", rules: RULES };

const RULES: &[Rule] = &[
    Rule {
        id: "G40a",
        says: "The CPU supports the activity state.",
        holds: |s| match s.get(GUEST_ACTIVITY_STATE) {
            0 => true,
            state @ 1..=3 => s.facts.capabilities.misc & 1 << (5 + state) != 0,
            _ => false,
        },
    },
    Rule {
        id: "G40b",
        says: "The DPL of SS is 0 in the activity state HLT.",
        holds: |s| s.get(GUEST_ACTIVITY_STATE) != HLT || s.clear(GUEST_SS_RIGHTS, 3 << 5),
    },
    Rule {
        id: "G40c",
        says: "STI and MOV SS block nothing unless the activity state is active (0).",
        holds: |s| s.get(GUEST_ACTIVITY_STATE) == 0 || s.clear(GUEST_INTERRUPTIBILITY, SHADOW),
    },
    Rule {
        id: "G41a",
        says: "The injected event can reach a CPU in this activity state.",
        holds: |s| event(s).is_none_or(|event| reaches(event, s.get(GUEST_ACTIVITY_STATE))),
    },
    Rule {
        id: "G41b",
        says: "No entry to system-management mode has the activity state wait-for-SIPI.",
        holds: |s| !s.entry(entry::TO_SMM) || s.get(GUEST_ACTIVITY_STATE) != WAIT_FOR_SIPI,
    },
    Rule {
        id: "G42a",
        says: "Bits 31:5 of the interruptibility state are 0.",
        holds: |s| s.clear(GUEST_INTERRUPTIBILITY, !0x1f),
    },
    Rule {
        id: "G42b",
        says: "STI and MOV SS do not block together.",
        holds: |s| s.get(GUEST_INTERRUPTIBILITY) & SHADOW != SHADOW,
    },
    Rule {
        id: "G42c",
        says: "Blocking by STI needs RFLAGS.IF.",
        holds: |s| s.clear(GUEST_INTERRUPTIBILITY, STI.into()) || s.get(GUEST_RFLAGS) & FLAGS_IF != 0,
    },
    Rule {
        id: "G42d",
        says: "No external interrupt is injected while STI or MOV SS blocks it.",
        holds: |s| injected(s) != Some(kind::EXTERNAL_INTERRUPT) || s.clear(GUEST_INTERRUPTIBILITY, SHADOW),
    },
    Rule {
        id: "G42e",
        says: "No NMI is injected while MOV SS blocks it.",
        holds: |s| injected(s) != Some(kind::NMI) || s.clear(GUEST_INTERRUPTIBILITY, MOV_SS.into()),
    },
    Rule {
        id: "G42f",
        says: "SMIs are not blocked outside of system-management mode.",
        holds: |s| s.facts.smm || s.clear(GUEST_INTERRUPTIBILITY, SMI),
    },
    Rule {
        id: "G42i",
        says: "SMIs are blocked in an entry to system-management mode.",
        holds: |s| !s.entry(entry::TO_SMM) || s.get(GUEST_INTERRUPTIBILITY) & SMI != 0,
    },
    Rule {
        id: "G42g",
        says: "No NMI is injected while NMIs are blocked, if there are virtual NMIs.",
        holds: |s| {
            !s.has(PIN_BASED_CONTROLS, pin::VIRTUAL_NMIS)
                || injected(s) != Some(kind::NMI)
                || s.clear(GUEST_INTERRUPTIBILITY, NMI.into())
        },
    },
    Rule {
        id: "G42h",
        says: "An interruption of an enclave needs SGX, and MOV SS does not block then.",
        holds: |s| {
            let state = s.get(GUEST_INTERRUPTIBILITY);
            state & ENCLAVE == 0 || s.facts.sgx && state & u64::from(MOV_SS) == 0
        },
    },
    Rule {
        id: "G43a",
        says: "The pending debug exceptions have only bits that exist.",
        holds: |s| {
            let bus_lock = if s.facts.bus_lock { 1 << 11 } else { 0 };
            s.clear(GUEST_PENDING_DEBUG, (0xff0 | 1 << 13 | 1 << 15 | !0x1_ffff) & !bus_lock)
        },
    },
    Rule {
        id: "G43b",
        says: "After STI, MOV SS or HLT a single step (bit 14) is pending if, and only if, RFLAGS.TF is 1 and BTF is 0.",
        holds: |s| {
            let follows = s.get(GUEST_INTERRUPTIBILITY) & SHADOW != 0 || s.get(GUEST_ACTIVITY_STATE) == HLT;
            let steps = s.get(GUEST_RFLAGS) & FLAGS_TF != 0 && s.get(GUEST_DEBUGCTL) & BRANCH_STEP == 0;
            !follows || (s.get(GUEST_PENDING_DEBUG) & PENDING_SINGLE_STEP != 0) == steps
        },
    },
    Rule {
        id: "G43c",
        says: "A pending exception of transactional memory (bit 16) comes with bit 12 alone, needs RTM, and MOV SS does not block.",
        holds: |s| {
            let pending = s.get(GUEST_PENDING_DEBUG);
            pending & PENDING_RTM == 0
                || pending & 0x1_ffff == PENDING_RTM | PENDING_ENABLED
                    && s.facts.rtm
                    && s.clear(GUEST_INTERRUPTIBILITY, MOV_SS.into())
        },
    },
    Rule {
        id: "G44a",
        says: "The VMCS link pointer is a page of memory, or all its bits are 1.",
        holds: |s| s.peek(VMCS_LINK_POINTER) == NO_LINK || s.page(VMCS_LINK_POINTER),
    },
    Rule {
        id: "G44b",
        says: "The VMCS at the link pointer has the CPU's revision, and bit 31 if VMCSs are shadowed.",
        holds: |s| {
            let link = s.get(VMCS_LINK_POINTER);
            let shadow = if s.secondary(secondary::VMCS_SHADOWING) { 1 << 31 } else { 0 };
            let expected = s.facts.capabilities.basic as u32 & 0x7fff_ffff | shadow;
            link == NO_LINK
                || !s.in_memory(link)
                || s.memory(link & !0xfff).is_none_or(|word| word == expected)
        },
    },
    Rule {
        id: "G44c",
        says: "The VMCS link pointer is not the current VMCS.",
        holds: |s| {
            s.note(key::CURRENT_VMCS, s.facts.current.0);
            s.get(VMCS_LINK_POINTER) != s.facts.current.0
        },
    },
];

/// Returns the type of the injected event, and records the event. Returns `None` if there is none.
fn injected(s: &State<'_>) -> Option<u64> {
    event(s).map(|event| event.kind)
}

/// Returns true if `event` can be injected into a CPU in the activity state `activity`.
fn reaches(event: Event, activity: u64) -> bool {
    const DEBUG: u64 = 1;
    const MACHINE_CHECK: u64 = 18;
    match (activity, event.kind, event.vector) {
        (HLT, kind::EXTERNAL_INTERRUPT | kind::NMI, _)
        | (HLT, kind::HARDWARE_EXCEPTION, DEBUG | MACHINE_CHECK)
        | (HLT, kind::OTHER, 0)
        | (SHUTDOWN, kind::NMI, _)
        | (SHUTDOWN, kind::HARDWARE_EXCEPTION, MACHINE_CHECK) => true,
        (activity, ..) => !matches!(activity, HLT | SHUTDOWN | WAIT_FOR_SIPI),
    }
}
