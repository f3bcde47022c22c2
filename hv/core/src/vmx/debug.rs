//! The exits that a debugger asks for on VT-x, and how exceptions that have exited go on to the guest.

use super::event::{self, Injection, PENDING_SINGLE_STEP, VALID, activity, interruptibility};
use super::field::*;
use crate::debugger::debug_registers;
use crate::debugger::debuggable::{DebugExit, GuestException};
use crate::debugger::port::PortAccess;
use crate::debugger::structure::{FIELDS, Layout};
use crate::x86::registers::Register;

/// Basic exit reasons. Intel SDM Vol. 3D, Appendix C "VMX Basic Exit Reasons".
mod reason {
    pub const EXCEPTION: u32 = 0;
    pub const MOV_DR: u32 = 29;
    pub const IO: u32 = 30;
    pub const MONITOR_TRAP: u32 = 37;
}

/// The types of events, in bits 10:8. Intel SDM Vol. 3C, 25.9.2 "Information for VM Exits Due to Vectored Events".
mod kind {
    pub const HARDWARE_EXCEPTION: u32 = 3;
    /// INT1.
    pub const PRIVILEGED_SOFTWARE_EXCEPTION: u32 = 5;
    /// INT3 and INTO.
    pub const SOFTWARE_EXCEPTION: u32 = 6;
}

/// What a VMCS consists of, for a debugger.
pub const LAYOUT: Layout = Layout { name: "VMCS", field: |number| ALL.get(number).map(|(name, _)| *name) };

const _: () = assert!(ALL.len() <= FIELDS);

/// RFLAGS.TF.
const TRAP: u64 = 1 << 8;
/// RFLAGS.IF.
const INTERRUPTS: u64 = 1 << 9;
/// IA32_DEBUGCTL.BTF: with TF set, the CPU stops after branches, not after instructions.
const BRANCH_STEP: u64 = 1 << 1;
/// The shadow of STI or of MOV SS.
const SHADOW: u32 = interruptibility::STI | interruptibility::MOV_SS;

/// Decodes an exit by its reason and its qualification. Returns `None` if no debugger has asked for it.
pub fn decode(code: u32, qualification: u64, fields: &impl Fields) -> Option<DebugExit> {
    // No instruction has more than 15 bytes.
    let length = || fields.read(EXIT_INSTRUCTION_LENGTH) as u8;
    Some(match code {
        reason::EXCEPTION => {
            let information = fields.read(EXIT_INTERRUPTION_INFO);
            match (information & 0xff, information >> 8 & 7) {
                (1, kind::PRIVILEGED_SOFTWARE_EXCEPTION) => DebugExit::Int1(length()),
                // The qualification has the bits of DR6: Intel SDM Vol. 3C, 28.2.1 "Basic VM-Exit Information".
                (1, _) => DebugExit::Debug(qualification),
                (3, _) => DebugExit::Breakpoint(length()),
                _ => return None,
            }
        }
        reason::MONITOR_TRAP => DebugExit::Step,
        reason::MOV_DR => DebugExit::Access(debug_registers::Access {
            number: (qualification & 7) as u8,
            writes: qualification & 1 << 4 == 0,
            register: Register::from_number(qualification >> 8),
            length: length(),
        }),
        // Intel SDM Vol. 3C, 28.2.1 "Basic VM-Exit Information", table "Exit Qualification for I/O Instructions".
        reason::IO => DebugExit::Port(PortAccess {
            reads: qualification & 1 << 3 != 0,
            is_string: qualification & 1 << 4 != 0,
            bytes: (qualification & 7) as u8 + 1,
            length: length(),
        }),
        _ => return None,
    })
}

/// Returns the injection of an exception of the guest's own. The CPU adds the length of INT1 and INT3 to RIP: Intel SDM
/// Vol. 3C, 27.6.1 "Vectored-Event Injection".
pub const fn injection(exception: GuestException) -> Injection {
    let (kind, vector, length) = match exception {
        GuestException::Debug => (kind::HARDWARE_EXCEPTION, 1, None),
        GuestException::Int1(length) => (kind::PRIVILEGED_SOFTWARE_EXCEPTION, 1, Some(length as u32)),
        GuestException::Breakpoint(length) => (kind::SOFTWARE_EXCEPTION, 3, Some(length as u32)),
    };
    Injection { information: VALID | kind << 8 | vector, error_code: None, instruction_length: length }
}

/// Makes the pending debug exceptions agree with RFLAGS.TF, as VM entry demands after STI, MOV SS and HLT: Intel SDM
/// Vol. 3C, 27.3.1.5 "Checks on Guest Non-Register State". They disagree after an exit by #DB, which saves them as
/// clear, and after the debugger has changed TF. An entry that injects a #DB drops what is pending, so the guest gets
/// no second one: 27.7.3 "Delivery of Pending Debug Exceptions after VM Entry".
pub fn settle(vmcs: &mut impl FieldsMut) {
    let follows =
        vmcs.read(GUEST_INTERRUPTIBILITY) & SHADOW != 0 || vmcs.read(GUEST_ACTIVITY_STATE) == activity::HLT;
    if !follows {
        return;
    }
    let pending = vmcs.read(GUEST_PENDING_DEBUG).0;
    let steps = vmcs.read(GUEST_RFLAGS).0 & TRAP != 0 && vmcs.read(GUEST_DEBUGCTL) & BRANCH_STEP == 0;
    let agreed = pending & !PENDING_SINGLE_STEP | if steps { PENDING_SINGLE_STEP } else { 0 };
    if agreed != pending {
        vmcs.write(GUEST_PENDING_DEBUG, Natural(agreed));
    }
}

/// Ends the shadow of STI or MOV SS: after a change of RIP or RFLAGS it would be that of another instruction, and VM
/// entry fails if STI blocks interrupts while RFLAGS.IF is 0. Intel SDM Vol. 3C, 27.3.1.5 "Checks on Guest Non-Register
/// State".
pub fn end_shadow(vmcs: &mut impl FieldsMut) {
    let blocking = vmcs.read(GUEST_INTERRUPTIBILITY);
    vmcs.write(GUEST_INTERRUPTIBILITY, blocking & !SHADOW);
}

/// Has the event that the next entry injects follow a change of RIP or RFLAGS by gdb. An event of the instruction at
/// the old RIP is dropped if RIP `has_moved`. An external interrupt does not come while RFLAGS.IF is 0, and VM entry
/// fails with it: its vector is returned, and it must come when the guest sets IF, since the APIC does not send it
/// again. Intel SDM Vol. 3C, 27.3.1.4 "Checks on Guest RIP, RFLAGS, and SSP".
pub fn revise_injection(vmcs: &mut impl FieldsMut, has_moved: bool) -> Option<u8> {
    let information = vmcs.read(ENTRY_INTERRUPTION_INFO);
    let takes_interrupts = vmcs.read(GUEST_RFLAGS).0 & INTERRUPTS != 0;
    let waits = event::external_interrupt(information).filter(|_| !takes_interrupts);
    let is_left = has_moved
        && event::kind_of_interrupted(information).is_some_and(|interrupted| interrupted.is_of_instruction());
    if waits.is_some() || is_left {
        vmcs.write(ENTRY_INTERRUPTION_INFO, 0);
    }
    waits
}

/// Holds back interrupts until the next instruction has been executed, where the manual lets blocking by STI stand:
/// with RFLAGS.IF set, without blocking by MOV SS, and without an interrupt that the entry injects. With RFLAGS.TF set
/// the guest would have to have a single step pending. Intel SDM Vol. 3C, 27.3.1.5 "Checks on Guest Non-Register
/// State".
pub fn hold_back_interrupts(vmcs: &mut impl FieldsMut) {
    let (flags, blocking) = (vmcs.read(GUEST_RFLAGS).0, vmcs.read(GUEST_INTERRUPTIBILITY));
    let injects = vmcs.read(ENTRY_INTERRUPTION_INFO) & VALID != 0;
    if flags & (INTERRUPTS | TRAP) == INTERRUPTS && blocking & SHADOW == 0 && !injects {
        vmcs.write(GUEST_INTERRUPTIBILITY, blocking | interruptibility::STI);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vmx::fake::FakeVmcs;

    /// Returns a VMCS with these values of RFLAGS, the interruptibility state, and the pending debug exceptions.
    fn vmcs(flags: u64, blocking: u32, pending: u64) -> FakeVmcs {
        let mut vmcs = FakeVmcs::default();
        vmcs.write(GUEST_RFLAGS, Natural(flags));
        vmcs.write(GUEST_INTERRUPTIBILITY, blocking);
        vmcs.write(GUEST_PENDING_DEBUG, Natural(pending));
        vmcs
    }

    #[test]
    fn exceptions_of_instructions_keep_their_type_and_their_length() {
        let exit = |information: u32| {
            let mut vmcs = FakeVmcs::default();
            vmcs.0.insert(EXIT_INTERRUPTION_INFO.encoding(), information.into());
            vmcs.0.insert(EXIT_INSTRUCTION_LENGTH.encoding(), 2);
            decode(0, 0x4000, &vmcs)
        };
        assert_eq!(exit(0x8000_0301), Some(DebugExit::Debug(0x4000)));
        assert_eq!(exit(0x8000_0501), Some(DebugExit::Int1(2)));
        assert_eq!(exit(0x8000_0603), Some(DebugExit::Breakpoint(2)));
        assert_eq!(exit(0x8000_030e), None);
        let length = |exception| injection(exception).instruction_length;
        assert_eq!(injection(GuestException::Debug).information, 0x8000_0301);
        assert_eq!(injection(GuestException::Int1(1)).information, 0x8000_0501);
        assert_eq!(injection(GuestException::Breakpoint(1)).information, 0x8000_0603);
        assert_eq!(length(GuestException::Debug), None);
        assert_eq!(length(GuestException::Int1(2)), Some(2));
        assert_eq!(length(GuestException::Breakpoint(3)), Some(3));
    }

    #[test]
    fn accesses_to_ports_decode() {
        let of = |qualification| {
            let mut vmcs = FakeVmcs::default();
            vmcs.0.insert(EXIT_INSTRUCTION_LENGTH.encoding(), 2);
            decode(30, qualification, &vmcs)
        };
        let access = |reads, is_string, bytes| {
            Some(DebugExit::Port(PortAccess { reads, is_string, bytes, length: 2 }))
        };
        assert_eq!(of(0x2fd_0008), access(true, false, 1));
        assert_eq!(of(0x80_0041), access(false, false, 2), "the port is an immediate");
        assert_eq!(of(0x2f8_000b), access(true, false, 4));
        assert_eq!(of(0x2f8_0030), access(false, true, 1), "REP OUTSB");
    }

    #[test]
    fn a_single_step_is_pending_in_a_shadow_if_and_only_if_the_trap_flag_is_set() {
        const B0: u64 = 1;
        let settled = |flags, blocking, pending| {
            let mut vmcs = vmcs(flags, blocking, pending);
            settle(&mut vmcs);
            vmcs.read(GUEST_PENDING_DEBUG).0
        };
        for blocking in [interruptibility::STI, interruptibility::MOV_SS] {
            assert_eq!(settled(TRAP | INTERRUPTS, blocking, B0), PENDING_SINGLE_STEP | B0);
            assert_eq!(settled(INTERRUPTS, blocking, PENDING_SINGLE_STEP), 0);
        }
        assert_eq!(settled(TRAP, 0, 0), 0, "no rule demands it");
        assert_eq!(settled(0, 0, PENDING_SINGLE_STEP), PENDING_SINGLE_STEP);
        let mut halted = vmcs(TRAP, 0, 0);
        halted.write(GUEST_ACTIVITY_STATE, activity::HLT);
        settle(&mut halted);
        assert_eq!(halted.read(GUEST_PENDING_DEBUG).0, PENDING_SINGLE_STEP);
        halted.write(GUEST_DEBUGCTL, BRANCH_STEP);
        settle(&mut halted);
        assert_eq!(halted.read(GUEST_PENDING_DEBUG).0, 0);
    }

    #[test]
    fn an_injected_event_follows_a_change_of_rip_and_flags() {
        let revised = |information, flags, has_moved| {
            let mut vmcs = vmcs(flags, 0, 0);
            vmcs.write(ENTRY_INTERRUPTION_INFO, information);
            let waits = revise_injection(&mut vmcs, has_moved);
            (vmcs.read(ENTRY_INTERRUPTION_INFO), waits)
        };
        const INTERRUPT: u32 = 0x8000_00ec;
        for has_moved in [false, true] {
            assert_eq!(revised(INTERRUPT, 2, has_moved), (0, Some(0xec)), "the entry would fail");
            assert_eq!(revised(INTERRUPT, INTERRUPTS, has_moved), (INTERRUPT, None));
            for between in [0, event::NMI, event::MACHINE_CHECK, 0x8000_0301] {
                assert_eq!(revised(between, 2, has_moved), (between, None));
            }
        }
        for of_instruction in [0x8000_0b0e, 0x8000_0480, 0x8000_0603] {
            assert_eq!(revised(of_instruction, 2, false), (of_instruction, None));
            assert_eq!(
                revised(of_instruction, 2, true),
                (0, None),
                "RIP and its length are another instruction's"
            );
        }
    }

    #[test]
    fn interrupts_are_held_back_only_where_the_entry_succeeds_with_it() {
        let held = |flags, blocking, injected| {
            let mut vmcs = vmcs(flags, blocking, 0);
            vmcs.write(ENTRY_INTERRUPTION_INFO, injected);
            hold_back_interrupts(&mut vmcs);
            vmcs.read(GUEST_INTERRUPTIBILITY)
        };
        assert_eq!(held(INTERRUPTS, 0, 0), interruptibility::STI);
        assert_eq!(held(INTERRUPTS, interruptibility::NMI, 0), interruptibility::NMI | interruptibility::STI);
        assert_eq!(held(0, 0, 0), 0, "interrupts are off");
        assert_eq!(held(INTERRUPTS | TRAP, 0, 0), 0, "the guest steps itself");
        assert_eq!(held(INTERRUPTS, 0, 0x8000_0030), 0, "an interrupt is injected");
        assert_eq!(held(INTERRUPTS, interruptibility::MOV_SS, 0), interruptibility::MOV_SS);
    }
}
