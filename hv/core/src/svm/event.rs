//! The format of the events that VMRUN injects (EVENTINJ), and of those whose delivery an exit interrupted
//! (EXITINTINFO). The two have the same format.
//!
//! AMD APM Vol. 2, 15.20 "Event Injection" and 15.7.2 "Intercepts During IDT Interrupt Delivery".

use crate::vmm::outcome::{Exception, Interrupted};

/// The event is valid.
const VALID: u64 = 1 << 31;
/// The event has an error code, in bits 63:32.
const ERROR_CODE: u64 = 1 << 11;
/// EXT of an error code.
const EXT: u64 = 1;

/// The types of events, in bits 10:8.
mod kind {
    pub const INTERRUPT: u64 = 0;
    pub const NMI: u64 = 2 << 8;
    pub const EXCEPTION: u64 = 3 << 8;
    pub const SOFTWARE_INTERRUPT: u64 = 4 << 8;
    pub const MASK: u64 = 7 << 8;
}

/// EVENTINJ for an NMI.
pub const NMI: u64 = VALID | kind::NMI | 2;

/// EVENTINJ for the #DB that a CPU raises after an instruction if TF is set.
pub const SINGLE_STEP: u64 = VALID | kind::EXCEPTION | 1;

/// EVENTINJ for #BP. RIP is the address after INT3: AMD APM Vol. 2, 15.20 "Event Injection".
pub const BREAKPOINT: u64 = VALID | kind::EXCEPTION | 3;

/// Returns EVENTINJ for the INT n with this vector. RIP is the address after the instruction.
pub const fn software_interrupt(vector: u8) -> u64 {
    VALID | kind::SOFTWARE_INTERRUPT | vector as u64
}

/// Returns EVENTINJ for `exception`. In real mode exceptions have no error code.
pub const fn inject(exception: Exception, protected_mode: bool) -> u64 {
    let (vector, error_code) = match exception {
        Exception::InvalidOpcode => (6, None),
        Exception::DoubleFault => (8, Some(0)),
        Exception::GeneralProtection => (13, Some(0)),
        Exception::GeneralProtectionOfEvent => (13, Some(EXT)),
        Exception::MachineCheck => (18, None),
    };
    let code = match error_code {
        Some(code) if protected_mode => code << 32 | ERROR_CODE,
        _ => 0,
    };
    VALID | kind::EXCEPTION | vector | code
}

/// Returns true if `event`, in the format of EVENTINJ and EXITINTINFO, is one at all.
pub const fn is_valid(event: u64) -> bool {
    event & VALID != 0
}

/// Returns true if `event` is that of an INT n, INT3 or INTO, whose handler returns to the instruction after it.
pub const fn is_of_instruction(event: u64) -> bool {
    matches!((event & kind::MASK, event & 0xff), (kind::SOFTWARE_INTERRUPT, _) | (kind::EXCEPTION, 3 | 4))
}

/// Returns EVENTINJ for the event whose delivery an exit interrupted, so that it is delivered again. Returns `None` if
/// `exitintinfo` holds no event.
///
/// Of INT n, INT3 and INTO it also returns `None` if the guest has executed the instruction: RIP still points to it,
/// and the guest executes it again. But if the last entry has injected it, as `injected` says, RIP is the address after
/// it.
pub const fn interrupted(exitintinfo: u64, injected: u64) -> Option<u64> {
    if exitintinfo & VALID == 0 {
        return None;
    }
    let vector = exitintinfo & 0xff;
    if is_of_instruction(exitintinfo) {
        let is_injected = injected & VALID != 0 && is_of_instruction(injected) && injected & 0xff == vector;
        return if is_injected { Some(injected) } else { None };
    }
    let kind = match (exitintinfo & kind::MASK, vector) {
        // QEMU reports NMIs and external interrupts with the type of an exception. Like every CPU, it refuses to inject
        // an exception with such a vector.
        (kind::EXCEPTION, 2) => kind::NMI,
        (kind::EXCEPTION, 32..) => kind::INTERRUPT,
        (kind, _) => kind,
    };
    // The error code is valid only if its bit is set.
    let error_code = if exitintinfo & ERROR_CODE != 0 { exitintinfo >> 32 << 32 | ERROR_CODE } else { 0 };
    Some(VALID | kind | vector | error_code)
}

/// Returns what kind of event an exit has interrupted; `None` if it has interrupted none. An NMI and an external
/// interrupt that QEMU reports as an exception have vectors that are as harmless here.
pub const fn kind_of_interrupted(exitintinfo: u64) -> Option<Interrupted> {
    if !is_valid(exitintinfo) {
        return None;
    }
    Some(match exitintinfo & kind::MASK {
        _ if is_of_instruction(exitintinfo) => Interrupted::Instruction,
        kind::EXCEPTION => Interrupted::Exception(exitintinfo as u8),
        _ => Interrupted::Interrupt,
    })
}

/// Returns the vector of the external interrupt that `event` is, or `None` if it is another event or none.
pub const fn external_interrupt(event: u64) -> Option<u8> {
    if event & (VALID | kind::MASK) == VALID | kind::INTERRUPT { Some(event as u8) } else { None }
}

/// The last event that was injected. An exit clears EVENTINJ, so after an entry that failed the rules are asked about
/// this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LastInjected {
    /// EVENTINJ.
    event: u64,
    /// The number of exits before the entry that injects the event.
    exits: u64,
}

impl LastInjected {
    /// Remembers `event`, which the entry after this number of exits injects.
    pub const fn new(event: u64, exits: u64) -> Self {
        Self { event, exits }
    }

    /// Returns the event that the last entry has injected, if it led to the exit with this number, counted from 1.
    /// Returns 0 if it injected none.
    pub const fn by_entry_to(self, exit: u64) -> u64 {
        if self.exits + 1 == exit { self.event } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn general_protection_has_an_error_code_in_protected_mode_alone() {
        assert_eq!(inject(Exception::InvalidOpcode, true), 0x8000_0306);
        assert_eq!(inject(Exception::GeneralProtection, true), 0x8000_0b0d);
        assert_eq!(inject(Exception::GeneralProtectionOfEvent, true), 0x1_8000_0b0d);
        assert_eq!(inject(Exception::GeneralProtection, false), 0x8000_030d);
        assert_eq!((NMI, SINGLE_STEP), (0x8000_0202, 0x8000_0301));
        assert_eq!(inject(Exception::MachineCheck, true), 0x8000_0312);
        assert_eq!(inject(Exception::DoubleFault, true), 0x8000_0b08);
    }

    #[test]
    fn interrupted_events_are_delivered_again() {
        assert_eq!(interrupted(0x2_0000_0b0e, 0), None, "not valid");
        assert_eq!(interrupted(0x2_8000_1b0e, 0), Some(0x2_8000_0b0e), "#PF");
        assert_eq!(interrupted(0x5_8000_0301, 0), Some(0x8000_0301), "#DB has no error code");
        assert_eq!(interrupted(0x8000_0030, 0), Some(0x8000_0030), "an external interrupt");
        assert_eq!(interrupted(0x8000_0202, 0), Some(NMI));
        assert_eq!(interrupted(0x8000_0302, 0), Some(NMI), "an NMI as QEMU reports it");
        assert_eq!(
            interrupted(0x8000_0342, 0),
            Some(0x8000_0042),
            "an external interrupt as QEMU reports it"
        );
    }

    #[test]
    fn interrupted_events_are_told_apart() {
        for (exitintinfo, kind) in [
            (0x2_0000_0b0e, None),
            (0x2_8000_0b0e, Some(Interrupted::Exception(14))),
            (0x8000_0030, Some(Interrupted::Interrupt)),
            (0x8000_0202, Some(Interrupted::Interrupt)),
            (0x8000_0480, Some(Interrupted::Instruction)),
            (0x8000_0303, Some(Interrupted::Instruction)),
        ] {
            assert_eq!(kind_of_interrupted(exitintinfo), kind, "{exitintinfo:#x}");
        }
    }

    #[test]
    fn external_interrupts_are_told_from_other_events() {
        assert_eq!(external_interrupt(0x8000_00ec), Some(0xec));
        for event in [0x0000_0030, NMI, 0x8000_0480, 0x2_8000_0b0e] {
            assert_eq!(external_interrupt(event), None, "{event:#x}");
        }
    }

    #[test]
    fn only_the_last_entry_s_event_is_remembered() {
        assert_eq!(LastInjected::default().by_entry_to(1), 0);
        let last = LastInjected::new(NMI, 7);
        assert_eq!([7, 8, 9].map(|exit| last.by_entry_to(exit)), [0, NMI, 0]);
    }

    #[test]
    fn events_of_instructions_are_injected_again_only_if_they_were_injected() {
        for event in [0x8000_0480, 0x8000_0303, 0x8000_0304] {
            assert_eq!(interrupted(event, 0), None, "{event:#x}");
            assert_eq!(interrupted(event, 0x8000_0481), None, "{event:#x}: another one was injected");
            assert_eq!(interrupted(event, event), Some(event), "RIP is after the instruction");
        }
    }
}
