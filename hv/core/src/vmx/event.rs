//! The format of the events that a VM entry injects, and of those whose delivery an exit interrupted.
//!
//! Intel SDM Vol. 3C, 25.8.3 "VM-Entry Controls for Event Injection" and 28.2.4 "Information for VM Exits During Event
//! Delivery".

use crate::vmm::outcome::{Exception, Interrupted};
use crate::vmm::percpu::pending;

/// The interruption information is valid.
pub const VALID: u32 = 1 << 31;
/// An error code is delivered.
const ERROR_CODE: u32 = 1 << 11;
/// EXT of an error code.
const EXT: u32 = 1;
/// The types of events, in bits 10:8.
mod kind {
    pub const HARDWARE_EXCEPTION: u32 = 3 << 8;
    pub const SOFTWARE_INTERRUPT: u32 = 4 << 8;
    /// INT1.
    pub const PRIVILEGED_SOFTWARE_EXCEPTION: u32 = 5 << 8;
    /// INT3 and INTO.
    pub const SOFTWARE_EXCEPTION: u32 = 6 << 8;
    pub const MASK: u32 = 7 << 8;
}
/// The vector, the type and the error-code bit, which VM-entry interruption information and IDT-vectoring information
/// have in common.
const EVENT: u32 = 0xfff;

/// The VM-entry interruption information of an NMI.
pub const NMI: u32 = VALID | 2 << 8 | 2;

/// Returns true if an NMI has caused the exit with this VM-exit interruption information.
pub const fn is_nmi(information: u32) -> bool {
    information & (VALID | kind::MASK | 0xff) == NMI
}

/// The VM-entry interruption information of a machine check. It has no error code, and it can be injected unless the
/// entry injects another event: Intel SDM Vol. 3C, 27.3.1.5 "Checks on Guest Non-Register State".
pub const MACHINE_CHECK: u32 = Injection::of(Exception::MachineCheck, true).information;

/// Bits of the interruptibility state.
pub mod interruptibility {
    /// Blocking by STI.
    pub const STI: u32 = 1 << 0;
    /// Blocking by MOV SS.
    pub const MOV_SS: u32 = 1 << 1;
    /// Blocking by NMI.
    pub const NMI: u32 = 1 << 3;
}

/// Activity states.
pub mod activity {
    /// The CPU executes instructions.
    pub const ACTIVE: u32 = 0;
    /// The CPU waits after HLT.
    pub const HLT: u32 = 1;
    /// Wait-for-SIPI.
    pub const WAIT_FOR_SIPI: u32 = 3;
}

/// BS of the pending debug exceptions: a single-step #DB is pending.
pub const PENDING_SINGLE_STEP: u64 = 1 << 14;

/// The values of the fields for event injection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Injection {
    /// VM-entry interruption information.
    pub information: u32,
    /// The error code, if the event has one.
    pub error_code: Option<u32>,
    /// The length in bytes of the instruction that raised the event, for software interrupts and software exceptions.
    pub instruction_length: Option<u32>,
}

impl Injection {
    /// Returns the injection of `exception`. In real mode exceptions have no error code, and VM entry fails with one:
    /// Intel SDM Vol. 3C, 27.2.1.3 "VM-Entry Control Fields".
    pub const fn of(exception: Exception, protected_mode: bool) -> Self {
        let (vector, error_code) = match exception {
            Exception::InvalidOpcode => (6, None),
            Exception::DoubleFault => (8, Some(0)),
            Exception::GeneralProtection => (13, Some(0)),
            Exception::GeneralProtectionOfEvent => (13, Some(EXT)),
            Exception::MachineCheck => (18, None),
        };
        let error_code = if protected_mode { error_code } else { None };
        let with_code = if error_code.is_some() { ERROR_CODE } else { 0 };
        Self {
            information: VALID | kind::HARDWARE_EXCEPTION | with_code | vector,
            error_code,
            instruction_length: None,
        }
    }
}

/// An event whose delivery an exit interrupted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InterruptedEvent {
    /// The event, to be injected again.
    pub injection: Injection,
    /// True if the event is an NMI. Its delivery has already set blocking by NMI, which must be cleared before the NMI
    /// is injected again.
    pub is_nmi: bool,
}

/// Decodes the IDT-vectoring information and its error code and instruction length. Returns `None` if the exit did not
/// interrupt the delivery of an event.
pub const fn interrupted(
    information: u32,
    error_code: u32,
    instruction_length: u32,
) -> Option<InterruptedEvent> {
    if information & VALID == 0 {
        return None;
    }
    let kind = information >> 8 & 7;
    Some(InterruptedEvent {
        injection: Injection {
            information: VALID | information & EVENT,
            error_code: if information & ERROR_CODE != 0 { Some(error_code) } else { None },
            // Software interrupt, privileged software exception, software exception.
            instruction_length: if kind >= 4 { Some(instruction_length) } else { None },
        },
        is_nmi: kind == 2,
    })
}

/// Returns what kind of event an exit has interrupted, by the IDT-vectoring information; `None` if it has interrupted
/// none.
pub const fn kind_of_interrupted(information: u32) -> Option<Interrupted> {
    if information & VALID == 0 {
        return None;
    }
    Some(match information & kind::MASK {
        kind::HARDWARE_EXCEPTION | kind::PRIVILEGED_SOFTWARE_EXCEPTION => {
            Interrupted::Exception(information as u8)
        }
        kind::SOFTWARE_INTERRUPT | kind::SOFTWARE_EXCEPTION => Interrupted::Instruction,
        _ => Interrupted::Interrupt,
    })
}

/// Returns the vector of the external interrupt that `information` stands for, or `None` if it is another event or
/// none.
pub const fn external_interrupt(information: u32) -> Option<u8> {
    if information & (VALID | kind::MASK) == VALID { Some(information as u8) } else { None }
}

/// Returns the VM-entry interruption information of the external interrupt with this vector.
pub const fn of_external_interrupt(vector: u8) -> u32 {
    VALID | vector as u32
}

/// Chooses which of the `waiting` events of [`pending`] the next entry injects. Returns the interruption information of
/// that event, or `None`, and the events that still wait. A machine check comes before an NMI, as in the CPU. Intel SDM
/// Vol. 3A, 6.9 "Prioritization of Concurrent Events".
pub const fn next_pending(waiting: u8, interruptibility: u32, entry_information: u32) -> (Option<u32>, u8) {
    if entry_information & VALID != 0 {
        (None, waiting)
    } else if waiting & pending::MACHINE_CHECK != 0 {
        (Some(MACHINE_CHECK), waiting & !pending::MACHINE_CHECK)
    } else if waiting & pending::NMI != 0 && nmi_allowed(interruptibility, entry_information) {
        (Some(NMI), waiting & !pending::NMI)
    } else {
        (None, waiting)
    }
}

/// Returns true if an NMI can be injected: no shadow and no other NMI blocks it, and the next entry does not inject
/// another event.
pub const fn nmi_allowed(interruptibility: u32, entry_information: u32) -> bool {
    let blocking = interruptibility::STI | interruptibility::MOV_SS | interruptibility::NMI;
    interruptibility & blocking == 0 && entry_information & VALID == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exceptions_have_an_error_code_in_protected_mode_alone() {
        assert_eq!(Injection::of(Exception::InvalidOpcode, true).information, 0x8000_0306);
        let fault = Injection::of(Exception::GeneralProtection, true);
        assert_eq!((fault.information, fault.error_code), (0x8000_0b0d, Some(0)));
        let of_event = Injection::of(Exception::GeneralProtectionOfEvent, true);
        assert_eq!((of_event.information, of_event.error_code), (0x8000_0b0d, Some(1)));
        let real_mode = Injection::of(Exception::GeneralProtection, false);
        assert_eq!((real_mode.information, real_mode.error_code), (0x8000_030d, None));
        let double_fault = Injection::of(Exception::DoubleFault, true);
        assert_eq!((double_fault.information, double_fault.error_code), (0x8000_0b08, Some(0)));
    }

    #[test]
    fn interrupted_events_are_delivered_again() {
        assert_eq!(interrupted(0x0000_0b0e, 2, 3), None);
        let page_fault = interrupted(0x8000_1b0e, 2, 3).expect("valid").injection;
        assert_eq!(
            page_fault,
            Injection { information: 0x8000_0b0e, error_code: Some(2), instruction_length: None }
        );
        let int80 = interrupted(0x8000_0480, 0, 2).expect("valid").injection;
        assert_eq!(
            int80,
            Injection { information: 0x8000_0480, error_code: None, instruction_length: Some(2) }
        );
        assert!(interrupted(0x8000_0202, 0, 0).expect("valid").is_nmi);
    }

    #[test]
    fn interrupted_events_are_told_apart() {
        for (information, kind) in [
            (0x0000_0b0e, None),
            (0x8000_1b0e, Some(Interrupted::Exception(14))),
            (0x8000_0501, Some(Interrupted::Exception(1))),
            (0x8000_0030, Some(Interrupted::Interrupt)),
            (0x8000_0202, Some(Interrupted::Interrupt)),
            (0x8000_0480, Some(Interrupted::Instruction)),
            (0x8000_0603, Some(Interrupted::Instruction)),
        ] {
            assert_eq!(kind_of_interrupted(information), kind, "{information:#x}");
        }
    }

    #[test]
    fn external_interrupts_are_told_from_other_events() {
        assert_eq!(external_interrupt(of_external_interrupt(0xec)), Some(0xec));
        for information in [0x0000_0030, NMI, 0x8000_0480, 0x8000_0b0e] {
            assert_eq!(external_interrupt(information), None, "{information:#x}");
        }
    }

    #[test]
    fn a_machine_check_comes_before_an_nmi_and_after_what_was_interrupted() {
        let both = pending::MACHINE_CHECK | pending::NMI;
        assert_eq!(next_pending(both, interruptibility::MOV_SS, 0), (Some(0x8000_0312), pending::NMI));
        assert_eq!(next_pending(both, 0, VALID | 0x80), (None, both));
        assert_eq!(next_pending(pending::NMI, 0, 0), (Some(NMI), 0));
        assert_eq!(next_pending(pending::NMI, interruptibility::NMI, 0), (None, pending::NMI));
        assert_eq!(next_pending(0, 0, 0), (None, 0));
    }

    #[test]
    fn an_nmi_waits_while_something_blocks_it_or_another_event_is_injected() {
        assert!(nmi_allowed(0, 0));
        for blocking in [interruptibility::STI, interruptibility::MOV_SS, interruptibility::NMI] {
            assert!(!nmi_allowed(blocking, 0));
        }
        assert!(!nmi_allowed(0, VALID | 0x80));
    }
}
