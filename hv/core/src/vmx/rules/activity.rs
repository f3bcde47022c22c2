//! The rules for the guest's state other than registers.

use super::bits::{entry, pin, secondary};
use super::fields::key;
use super::injection::{Event, event, kind};
use super::state::{MANUAL, Rules, Section, State};
use crate::vmm::rules::rules;
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

const RULES: Rules = rules![
    State,
    ("G40a", "The CPU supports the activity state.", |s| {
        match s.get(GUEST_ACTIVITY_STATE) {
            0 => true,
            state @ 1..=3 => s.facts.capabilities.misc & 1 << (5 + state) != 0,
            _ => false,
        }
    }),
    ("G40b", "The DPL of SS is 0 in the activity state HLT.", |s| {
        s.get(GUEST_ACTIVITY_STATE) != HLT || s.clear(GUEST_SS_RIGHTS, 3 << 5)
    }),
    ("G40c", "STI and MOV SS block nothing unless the activity state is active (0).", |s| {
        s.get(GUEST_ACTIVITY_STATE) == 0 || s.clear(GUEST_INTERRUPTIBILITY, SHADOW)
    }),
    ("G41a", "The injected event can reach a CPU in this activity state.", |s| {
        event(s).is_none_or(|event| reaches(event, s.get(GUEST_ACTIVITY_STATE)))
    }),
    ("G41b", "No entry to system-management mode has the activity state wait-for-SIPI.", |s| {
        !s.entry(entry::TO_SMM) || s.get(GUEST_ACTIVITY_STATE) != WAIT_FOR_SIPI
    }),
    ("G42a", "Bits 31:5 of the interruptibility state are 0.", |s| s.clear(GUEST_INTERRUPTIBILITY, !0x1f)),
    ("G42b", "STI and MOV SS do not block together.", |s| s.get(GUEST_INTERRUPTIBILITY) & SHADOW != SHADOW),
    ("G42c", "Blocking by STI needs RFLAGS.IF.", |s| {
        s.clear(GUEST_INTERRUPTIBILITY, STI.into()) || s.get(GUEST_RFLAGS) & FLAGS_IF != 0
    }),
    ("G42d", "No external interrupt is injected while STI or MOV SS blocks it.", |s| {
        injected(s) != Some(kind::EXTERNAL_INTERRUPT) || s.clear(GUEST_INTERRUPTIBILITY, SHADOW)
    }),
    ("G42e", "No NMI is injected while MOV SS blocks it.", |s| {
        injected(s) != Some(kind::NMI) || s.clear(GUEST_INTERRUPTIBILITY, MOV_SS.into())
    }),
    ("G42f", "SMIs are not blocked outside of system-management mode.", |s| {
        s.facts.smm || s.clear(GUEST_INTERRUPTIBILITY, SMI)
    }),
    ("G42i", "SMIs are blocked in an entry to system-management mode.", |s| {
        !s.entry(entry::TO_SMM) || s.get(GUEST_INTERRUPTIBILITY) & SMI != 0
    }),
    ("G42g", "No NMI is injected while NMIs are blocked, if there are virtual NMIs.", |s| {
        !s.has(PIN_BASED_CONTROLS, pin::VIRTUAL_NMIS)
            || injected(s) != Some(kind::NMI)
            || s.clear(GUEST_INTERRUPTIBILITY, NMI.into())
    }),
    ("G42h", "An interruption of an enclave needs SGX, and MOV SS does not block then.", |s| {
        let state = s.get(GUEST_INTERRUPTIBILITY);
        state & ENCLAVE == 0 || s.facts.sgx && state & u64::from(MOV_SS) == 0
    }),
    ("G43a", "The pending debug exceptions have only bits that exist.", |s| {
        let bus_lock = if s.facts.bus_lock { 1 << 11 } else { 0 };
        s.clear(GUEST_PENDING_DEBUG, (0xff0 | 1 << 13 | 1 << 15 | !0x1_ffff) & !bus_lock)
    }),
    (
        "G43b",
        "After STI, MOV SS or HLT a single step (bit 14) is pending if, and only if, RFLAGS.TF is 1 and BTF is 0.",
        |s| {
            let follows = s.get(GUEST_INTERRUPTIBILITY) & SHADOW != 0 || s.get(GUEST_ACTIVITY_STATE) == HLT;
            let steps = s.get(GUEST_RFLAGS) & FLAGS_TF != 0 && s.get(GUEST_DEBUGCTL) & BRANCH_STEP == 0;
            !follows || (s.get(GUEST_PENDING_DEBUG) & PENDING_SINGLE_STEP != 0) == steps
        }
    ),
    (
        "G43c",
        "A pending exception of transactional memory (bit 16) comes with bit 12 alone, needs RTM, and MOV SS does not block.",
        |s| {
            let pending = s.get(GUEST_PENDING_DEBUG);
            pending & PENDING_RTM == 0
                || pending & 0x1_ffff == PENDING_RTM | PENDING_ENABLED
                    && s.facts.rtm
                    && s.clear(GUEST_INTERRUPTIBILITY, MOV_SS.into())
        }
    ),
    ("G44a", "The VMCS link pointer is a page of memory, or all its bits are 1.", |s| {
        s.peek(VMCS_LINK_POINTER) == NO_LINK || s.page(VMCS_LINK_POINTER)
    }),
    ("G44b", "The VMCS at the link pointer has the CPU's revision, and bit 31 if VMCSs are shadowed.", |s| {
        let link = s.get(VMCS_LINK_POINTER);
        let shadow = if s.secondary(secondary::VMCS_SHADOWING) { 1 << 31 } else { 0 };
        let expected = s.facts.capabilities.basic as u32 & 0x7fff_ffff | shadow;
        link == NO_LINK || !s.page(VMCS_LINK_POINTER) || s.memory(link).is_none_or(|word| word == expected)
    }),
    ("G44c", "The VMCS link pointer is not the current VMCS.", |s| {
        s.note(key::CURRENT_VMCS, s.facts.current.0);
        s.get(VMCS_LINK_POINTER) != s.facts.current.0
    }),
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
