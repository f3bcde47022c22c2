//! The rules for the event that a VM entry injects.

use super::bits::primary;
use super::state::{MANUAL, Section, State};
use crate::policy::control::CR0_PE;
use crate::vmm::rules::rules;
use crate::vmx::field::*;

/// The number of the section.
pub const NUMBER: &str = "27.2.1.3";
/// The title of the section.
pub const TITLE: &str = "VM-Entry Control Fields";

/// The rules for event injection. Each holds if no event is injected.
pub const SECTION: Section = Section {
    manual: MANUAL,
    number: NUMBER,
    title: TITLE,
    rules: rules![
        State,
        (
            "C32",
            "The event has a type that exists: not 1, and 7 only if the CPU has the monitor trap flag.",
            |s| {
                let has_trap_flag =
                    s.facts.capabilities.primary >> 32 & u64::from(primary::MONITOR_TRAP) != 0;
                event(s).is_none_or(|event| event.kind != 1 && (event.kind != kind::OTHER || has_trap_flag))
            }
        ),
        (
            "C33",
            "The vector suits the type: 2 for an NMI, at most 31 for an exception, 0 for the monitor trap flag.",
            |s| {
                event(s).is_none_or(|event| match event.kind {
                    kind::NMI => event.vector == 2,
                    kind::HARDWARE_EXCEPTION => event.vector <= 31,
                    kind::OTHER => event.vector == 0,
                    _ => true,
                })
            }
        ),
        (
            "C34",
            "An error code comes with a hardware exception that has one, in protected mode, and with nothing else.",
            |s| {
                event(s).is_none_or(|event| {
                    let is_fault = event.kind == kind::HARDWARE_EXCEPTION;
                    let may = is_fault && s.get(GUEST_CR0) & CR0_PE != 0;
                    // A CPU with this bit leaves it to software which exceptions have an error code.
                    let free = s.facts.capabilities.basic & 1 << 56 != 0;
                    let control_protection = event.vector == 21 && s.facts.cet;
                    if may && (free || control_protection || event.vector > 31) {
                        return true;
                    }
                    const WITH_CODE: u32 = 1 << 8 | 0x1f << 10 | 1 << 17;
                    event.has_code == (may && WITH_CODE & 1 << event.vector != 0)
                })
            }
        ),
        ("C35", "Bits 30:12 of the interruption information are 0.", |s| {
            event(s).is_none_or(|_| s.clear(ENTRY_INTERRUPTION_INFO, 0x7fff_f000))
        }),
        ("C36", "Bits 31:16 of the error code are 0, if it is delivered.", |s| {
            event(s).is_none_or(|event| !event.has_code || s.clear(ENTRY_EXCEPTION_ERROR_CODE, 0xffff_0000))
        }),
        (
            "C37",
            "The instruction of a software interrupt or exception has 1 to 15 bytes, or 0 if the CPU allows it.",
            |s| {
                event(s).is_none_or(|event| {
                    let least = u64::from(s.facts.capabilities.misc & 1 << 30 == 0);
                    !matches!(event.kind, 4..=6) || (least..=15).contains(&s.get(ENTRY_INSTRUCTION_LENGTH))
                })
            }
        ),
    ],
};

/// The types of events.
pub mod kind {
    /// An external interrupt.
    pub const EXTERNAL_INTERRUPT: u64 = 0;
    /// An NMI.
    pub const NMI: u64 = 2;
    /// A hardware exception.
    pub const HARDWARE_EXCEPTION: u64 = 3;
    /// Another event: the monitor trap flag.
    pub const OTHER: u64 = 7;
}

/// The event that an entry injects.
#[derive(Debug, Clone, Copy)]
pub struct Event {
    /// The vector.
    pub vector: u64,
    /// The type, as [`kind`] has it.
    pub kind: u64,
    /// An error code is delivered.
    pub has_code: bool,
}

/// Returns the event that the entry injects, and records it. Returns `None` if it injects none.
#[inline(never)]
pub fn event(s: &State<'_>) -> Option<Event> {
    let info = s.get(ENTRY_INTERRUPTION_INFO);
    let event = Event { vector: info & 0xff, kind: info >> 8 & 7, has_code: info & 1 << 11 != 0 };
    (info & 1 << 31 != 0).then_some(event)
}
