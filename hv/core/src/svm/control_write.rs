//! The instructions that exit as writes of CR0 or CR4.
//!
//! With decode assists the CPU reports the operand of MOV: AMD APM Vol. 2, 15.33.1 "MOV CRx/DRx Intercepts". Otherwise
//! the instruction is read in memory. Writes of CR0 exit only if they change a bit other than TS and MP, so CLTS never
//! does: AMD APM Vol. 2, 15.9 "Instruction Intercepts".

use super::vmcb::Control;
use crate::policy::control::ControlWrite;
use crate::x86::registers::{Register, Registers};

/// Bit 63 of EXITINFO1: the instruction is MOV, and bits 3:0 are its register.
const IS_MOV: u64 = 1 << 63;

/// Returns true if decode assists have reported the instruction, so that the exit decodes without the bytes.
pub const fn is_reported(control: &Control) -> bool {
    control.exitinfo1 & IS_MOV != 0
}

/// Decodes the instruction that exited as `exited`, whose register is not known yet. Returns the write and the length
/// of the instruction in bytes, or `None` if `bytes` begin with no such instruction. `registers` include RSP.
///
/// LMSW of a memory operand is not decoded. In long mode, where it could exit, no system uses it.
pub fn decode(
    exited: ControlWrite,
    bytes: impl Iterator<Item = u8>,
    registers: &Registers,
    is_64_bit: bool,
) -> Option<(ControlWrite, u8)> {
    let mut length = 0;
    let mut extension = 0;
    let mut bytes = bytes.take(15).inspect(|_| length += 1);
    let opcode = loop {
        match bytes.next()? {
            // The REX prefix, of which bit 0 extends the register's number. It has no effect if another prefix follows.
            rex @ 0x40..=0x4f if is_64_bit => extension = rex & 1,
            0x66 | 0x67 | 0xf2 | 0xf3 | 0x26 | 0x2e | 0x36 | 0x3e | 0x64 | 0x65 => extension = 0,
            0x0f => break bytes.next()?,
            _ => return None,
        }
    };
    let modrm = bytes.next()?;
    drop(bytes);
    let register = Register::from_number(u64::from(modrm & 7 | extension << 3));
    let write = match (opcode, modrm >> 3 & 7, exited) {
        // The bits of ModRM that select memory are ignored.
        (0x22, 0, ControlWrite::Cr0(_)) => ControlWrite::Cr0(register),
        (0x22, 4, ControlWrite::Cr4(_)) => ControlWrite::Cr4(register),
        (0x01, 6, ControlWrite::Cr0(_)) if modrm >> 6 == 3 => {
            ControlWrite::Lmsw(registers.low(register) as u16)
        }
        _ => return None,
    };
    Some((write, length))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CR0: ControlWrite = ControlWrite::Cr0(Register::Rax);
    const CR4: ControlWrite = ControlWrite::Cr4(Register::Rax);

    fn of(exited: ControlWrite, bytes: &[u8], is_64_bit: bool) -> Option<(ControlWrite, u8)> {
        let mut registers = Registers::default();
        registers.set(Register::Rdi, 0xabcd_1234);
        decode(exited, bytes.iter().copied(), &registers, is_64_bit)
    }

    #[test]
    fn moves_to_control_registers_decode() {
        assert_eq!(of(CR0, &[0x0f, 0x22, 0xc3], true), Some((ControlWrite::Cr0(Register::Rbx), 3)));
        assert_eq!(of(CR0, &[0x0f, 0x22, 0x03], true), Some((ControlWrite::Cr0(Register::Rbx), 3)));
        assert_eq!(of(CR4, &[0x41, 0x0f, 0x22, 0xe7], true), Some((ControlWrite::Cr4(Register::R15), 4)));
        let ignored_rex = of(CR4, &[0x41, 0x66, 0x0f, 0x22, 0xe7], true);
        assert_eq!(ignored_rex, Some((ControlWrite::Cr4(Register::Rdi), 5)));
        assert_eq!(of(CR4, &[0x41, 0x0f, 0x22, 0xe7], false), None, "INC ECX");
        assert_eq!(of(CR4, &[0x0f, 0x22, 0xc3], true), None, "a write of CR0 did not exit as one of CR4");
        assert_eq!(of(CR0, &[0x0f, 0x22, 0xd8], true), None, "CR3");
        assert_eq!(of(CR0, &[0x0f, 0x20, 0xc3], true), None, "a read");
        assert_eq!(of(CR0, &[0xf0, 0x0f, 0x22, 0xc0], false), None, "LOCK MOV CR0 writes CR8");
        assert_eq!(of(CR0, &[0x0f, 0x22], true), None);
    }

    #[test]
    fn lmsw_of_a_register_has_the_low_half_of_it() {
        assert_eq!(of(CR0, &[0x0f, 0x01, 0xf7], true), Some((ControlWrite::Lmsw(0x1234), 3)));
        assert_eq!(of(CR0, &[0x0f, 0x01, 0x37], true), None, "from memory");
        assert_eq!(of(CR4, &[0x0f, 0x01, 0xf7], true), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_decoded(bytes in prop::collection::vec(any::<u8>(), 0..18), is_64_bit in any::<bool>()) {
            if let Some((_, length)) = of(CR0, &bytes, is_64_bit) {
                prop_assert!((3..=15).contains(&length) && usize::from(length) <= bytes.len());
            }
        }
    }
}
