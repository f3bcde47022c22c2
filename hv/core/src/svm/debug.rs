//! The exits that a debugger asks for on AMD-V, and the instructions that cause them. The CPU need not have decode
//! assists.

use super::event;
use super::vmcb::{IGNORE_TASK_PRIORITY, VIRTUAL_INTERRUPT, intercept};
use crate::debugger::debug_registers::Access;
use crate::debugger::port::PortAccess;
use crate::x86::registers::Register;

/// Exit codes. AMD APM Vol. 2, Appendix C "SVM Intercept Exit Codes".
pub mod code {
    /// A read of DR0. Those of the further debug registers follow.
    pub const READ_DR0: u32 = 0x20;
    /// A read of DR7.
    pub const READ_DR7: u32 = 0x27;
    /// A write of DR0. Those of the further debug registers follow.
    pub const WRITE_DR0: u32 = 0x30;
    /// A write of DR7.
    pub const WRITE_DR7: u32 = 0x37;
    /// #DB.
    pub const DEBUG: u32 = 0x41;
    /// #BP.
    pub const BREAKPOINT: u32 = 0x43;
    /// A physical interrupt.
    pub const INTERRUPT: u32 = 0x60;
    /// An NMI.
    pub const NMI: u32 = 0x61;
    /// IRET.
    pub const IRET: u32 = 0x74;
    /// INT n.
    pub const SOFTWARE_INTERRUPT: u32 = 0x75;
    /// IN, OUT, INS or OUTS.
    pub const IO: u32 = 0x7b;
    /// INT1.
    pub const INT1: u32 = 0x88;
}

/// RFLAGS.IF.
const INTERRUPTS: u64 = 1 << 9;
/// The lowest bit of V_INTR_VECTOR in the control of virtual interrupts.
const INTERRUPT_VECTOR: u32 = 32;

/// Returns the intercepts of the general word after an exit by a physical interrupt, an NMI or IRET. The guest takes
/// the interrupt or the NMI itself, as if nothing had been intercepted. Once its handler ends by IRET, NMIs exit again,
/// and the debugger asks for interrupts anew. An NMI is not injected: the CPU masks further ones only if it has
/// delivered it.
pub const fn until_iret(exit: u32, general: u32) -> u32 {
    match exit {
        code::INTERRUPT => general & !intercept::INTERRUPT | intercept::IRET,
        code::NMI => general & !intercept::NMI | intercept::IRET,
        _ => general & !intercept::IRET | intercept::NMI,
    }
}

/// Returns what becomes of `event`, which the next entry injects, and of the control of virtual interrupts after gdb
/// has changed RIP or RFLAGS. An event of the instruction at the old RIP is dropped if RIP `has_moved`. An external
/// interrupt, which an injection would deliver whatever RFLAGS.IF says, comes when the guest sets IF, since the APIC
/// does not send it again: AMD APM Vol. 2, 15.21.4 "Injecting Virtual (INTR) Interrupts".
pub fn revise_injection(event: u64, control: u64, has_moved: bool, flags: u64) -> (u64, u64) {
    let is_left =
        event::kind_of_interrupted(event).is_some_and(|interrupted| interrupted.is_of_instruction());
    match event::external_interrupt(event) {
        // At most one can wait. While one does, the guest takes no other one, unless it has just set IF.
        Some(vector) if flags & INTERRUPTS == 0 && control & VIRTUAL_INTERRUPT == 0 => {
            let others = control & !(0xff << INTERRUPT_VECTOR);
            let waits = VIRTUAL_INTERRUPT | IGNORE_TASK_PRIORITY | u64::from(vector) << INTERRUPT_VECTOR;
            (0, others | waits)
        }
        None if has_moved && is_left => (0, control),
        _ => (event, control),
    }
}

/// Decodes the MOV to or from a debug register that has exited with this code. Returns `None` if the bytes are no such
/// instruction.
pub fn access(exit: u32, bytes: impl Iterator<Item = u8>, is_64_bit: bool) -> Option<Access> {
    let (number, writes) = match exit {
        code::READ_DR0..=code::READ_DR7 => (exit - code::READ_DR0, false),
        code::WRITE_DR0..=code::WRITE_DR7 => (exit - code::WRITE_DR0, true),
        _ => return None,
    };
    let mut length = 0;
    let mut extension = 0;
    let mut bytes = bytes.take(15).inspect(|_| length += 1);
    let opcode = loop {
        match bytes.next()? {
            // The REX prefix, of which bit 0 extends the register's number.
            rex @ 0x40..=0x4f if is_64_bit => extension = u64::from(rex & 1) << 3,
            0x66 | 0x67 | 0xf2 | 0xf3 | 0x26 | 0x2e | 0x36 | 0x3e | 0x64 | 0x65 => extension = 0,
            0x0f => break bytes.next()?,
            _ => return None,
        }
    };
    let wanted = if writes { 0x23 } else { 0x21 };
    let modrm = bytes.next().filter(|_| opcode == wanted)?;
    drop(bytes);
    let register = Register::from_number(u64::from(modrm & 7) | extension);
    Some(Access { number: number as u8, writes, register, length })
}

/// Decodes an access to an I/O port by EXITINFO1 and the length of the instruction. AMD APM Vol. 2, 15.10.2 "IN and OUT
/// Behavior".
pub const fn port_access(information: u64, length: u8) -> PortAccess {
    // One of the bits 4 to 6 is set, for 1, 2 or 4 bytes.
    let bytes = information >> 4 & 7;
    PortAccess {
        reads: information & 1 != 0,
        is_string: information & 1 << 2 != 0,
        bytes: bytes as u8,
        length,
    }
}

/// An instruction that raises an exception or an interrupt, with its length in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SoftwareInterrupt {
    /// INT1.
    Int1(u8),
    /// INT3. QEMU reports it as an INT n.
    Breakpoint(u8),
    /// INT n, with its vector.
    Interrupt(u8, u8),
}

/// Decodes an instruction that has exited as INT1, INT3 or INT n. Returns `None` if the bytes are no such instruction.
pub fn software_interrupt(bytes: impl Iterator<Item = u8>) -> Option<SoftwareInterrupt> {
    let mut length = 0;
    let mut bytes = bytes.take(15);
    loop {
        length += 1;
        match bytes.next()? {
            0xf1 => return Some(SoftwareInterrupt::Int1(length)),
            0xcc => return Some(SoftwareInterrupt::Breakpoint(length)),
            0xcd => return Some(SoftwareInterrupt::Interrupt(bytes.next()?, length + 1)),
            0x66 | 0x67 | 0xf2 | 0xf3 | 0x26 | 0x2e | 0x36 | 0x3e | 0x40..=0x4f | 0x64 | 0x65 => {}
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moves_of_debug_registers_decode() {
        let of = |exit, bytes: &[u8]| access(exit, bytes.iter().copied(), true);
        let access = |number, writes, register, length| Some(Access { number, writes, register, length });
        assert_eq!(of(0x37, &[0x0f, 0x23, 0xf8]), access(7, true, Register::Rax, 3));
        assert_eq!(of(0x26, &[0x41, 0x0f, 0x21, 0xf5]), access(6, false, Register::R13, 4));
        assert_eq!(of(0x26, &[0x0f, 0x23, 0xf0]), None, "a write did not exit as a read");
        assert_eq!(of(0x26, &[0x90]), None);
        assert_eq!(of(0x40, &[0x0f, 0x23, 0xf8]), None);
    }

    #[test]
    fn accesses_to_ports_decode() {
        let of = |information| port_access(information, 2);
        let access = |reads, is_string, bytes| PortAccess { reads, is_string, bytes, length: 2 };
        assert_eq!(of(0x2fd_0211), access(true, false, 1));
        assert_eq!(of(0x2f8_0220), access(false, false, 2));
        assert_eq!(of(0x2f8_0241), access(true, false, 4));
        assert_eq!(of(0x2f8_021c), access(false, true, 1), "REP OUTSB");
    }

    #[test]
    fn an_interrupt_and_an_nmi_are_the_guests_until_its_handler_ends() {
        const BOTH: u32 = intercept::INTERRUPT | intercept::NMI;
        let in_interrupt = until_iret(code::INTERRUPT, BOTH);
        assert_eq!(in_interrupt, intercept::NMI | intercept::IRET);
        let in_nmi = until_iret(code::NMI, in_interrupt);
        assert_eq!(in_nmi, intercept::IRET);
        assert_eq!(until_iret(code::INTERRUPT, until_iret(code::NMI, BOTH)), intercept::IRET);
        assert_eq!(until_iret(code::IRET, in_nmi), intercept::NMI);
        let others = intercept::CPUID | intercept::IRET;
        assert_eq!(until_iret(code::IRET, others), intercept::CPUID | intercept::NMI);
    }

    #[test]
    fn an_injected_event_follows_a_change_of_rip_and_flags() {
        use crate::svm::vmcb::INTERRUPT_MASKING;
        const EVENT: u64 = 0x8000_00ec;
        let waiting = 0xec_0010_0100 | INTERRUPT_MASKING;
        for has_moved in [false, true] {
            let revised = |event, flags| revise_injection(event, INTERRUPT_MASKING, has_moved, flags);
            assert_eq!(revised(EVENT, 2), (0, waiting));
            for (event, flags) in [(EVENT, INTERRUPTS), (0, 2), (event::NMI, 2), (event::SINGLE_STEP, 2)] {
                assert_eq!(revised(event, flags), (event, INTERRUPT_MASKING), "{event:#x}");
            }
            assert_eq!(revise_injection(EVENT, waiting, has_moved, 2), (EVENT, waiting), "another one waits");
        }
        for event in [0x2_8000_0b0e, 0x8000_0480, event::BREAKPOINT] {
            assert_eq!(revise_injection(event, 0, false, 2), (event, 0));
            assert_eq!(revise_injection(event, 0, true, 2), (0, 0));
        }
    }

    #[test]
    fn software_interrupts_decode() {
        let of = |bytes: &[u8]| software_interrupt(bytes.iter().copied());
        assert_eq!(of(&[0xcc]), Some(SoftwareInterrupt::Breakpoint(1)));
        assert_eq!(of(&[0x3e, 0x66, 0xcc]), Some(SoftwareInterrupt::Breakpoint(3)));
        assert_eq!(of(&[0xf1]), Some(SoftwareInterrupt::Int1(1)));
        assert_eq!(of(&[0x66; 15]), None);
        assert_eq!(of(&[0xcd, 0x80]), Some(SoftwareInterrupt::Interrupt(0x80, 2)));
        assert_eq!(of(&[0x66, 0xcd, 3]), Some(SoftwareInterrupt::Interrupt(3, 3)));
        assert_eq!(of(&[0x90]), None);
        assert_eq!(of(&[0xcd]), None);
    }
}
