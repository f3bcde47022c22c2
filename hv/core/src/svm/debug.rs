//! The exits that a debugger asks for on AMD-V, and the instructions that cause them. The CPU need not have decode assists.

use crate::debugger::debug_registers::Access;
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

/// The instruction that has exited as INT n.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SoftwareInterrupt {
    /// INT3, which QEMU reports like this.
    Breakpoint,
    /// INT n, with its vector and its length in bytes.
    Interrupt(u8, u8),
}

/// Decodes the instruction that has exited as INT n. Returns `None` if the bytes are no such instruction.
pub fn software_interrupt(bytes: impl Iterator<Item = u8>) -> Option<SoftwareInterrupt> {
    let mut length = 0;
    let mut bytes = bytes.take(15).inspect(|_| length += 1);
    loop {
        match bytes.next()? {
            0xcc => return Some(SoftwareInterrupt::Breakpoint),
            0xcd => {
                let vector = bytes.next()?;
                drop(bytes);
                return Some(SoftwareInterrupt::Interrupt(vector, length));
            }
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
    fn software_interrupts_decode() {
        let of = |bytes: &[u8]| software_interrupt(bytes.iter().copied());
        assert_eq!(of(&[0xcc]), Some(SoftwareInterrupt::Breakpoint));
        assert_eq!(of(&[0xcd, 0x80]), Some(SoftwareInterrupt::Interrupt(0x80, 2)));
        assert_eq!(of(&[0x66, 0xcd, 3]), Some(SoftwareInterrupt::Interrupt(3, 3)));
        assert_eq!(of(&[0x90]), None);
        assert_eq!(of(&[0xcd]), None);
    }
}
