//! A decoder of instructions that store 32 bits: MOV, XCHG, and AND, OR and XOR with memory. These are the instructions
//! with which compilers write to the local APIC's page.
//!
//! Intel SDM Vol. 2A, 2.1 "Instruction Format for Protected Mode, Real-Address Mode, and Virtual-8086 Mode" and 2.2
//! "IA-32e Mode".

use super::fetch::Width;
use crate::x86::registers::Register;

/// The operand that is not in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The low 32 bits of a register.
    Register(Register),
    /// The low 32 bits of a register, into which XCHG loads the old value of the memory operand.
    Exchange(Register),
    /// An immediate. One of 8 bits is sign-extended.
    Immediate(u32),
}

/// How the stored value is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// It is the source operand.
    Replace,
    /// AND.
    And,
    /// OR.
    Or,
    /// XOR.
    Xor,
}

impl Operation {
    /// Returns the value to be stored. `old` is the value in memory, and `source` is the other operand.
    pub const fn result(self, old: u32, source: u32) -> u32 {
        match self {
            Self::Replace => source,
            Self::And => old & source,
            Self::Or => old | source,
            Self::Xor => old ^ source,
        }
    }

    /// Returns the operation that has this number in bits 5:3 of its opcodes and in the reg field of ModRM, or `None`
    /// for ADD, ADC, SBB, SUB and CMP.
    const fn numbered(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Or),
            4 => Some(Self::And),
            6 => Some(Self::Xor),
            _ => None,
        }
    }
}

/// An instruction that stores 32 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Store {
    /// How the stored value is computed.
    pub operation: Operation,
    /// The operand that is not in memory.
    pub source: Source,
    /// The length of the instruction in bytes.
    pub length: u8,
}

/// The bits of RFLAGS that AND, OR and XOR change: OF, SF, ZF, AF, PF, CF.
pub const FLAGS: u64 = 0x8d5;

/// Returns [`FLAGS`] after AND, OR or XOR with this result. AF is undefined, and 0 here.
pub const fn flags(result: u32) -> u64 {
    let sign = (result >> 31) as u64;
    let zero = (result == 0) as u64;
    let even = (result as u8).count_ones().is_multiple_of(2) as u64;
    sign << 7 | zero << 6 | even << 2
}

/// The longest instruction in bytes. Intel SDM Vol. 2A, 2.3.11 "AVX Instruction Length".
const MAX_LENGTH: u8 = 15;

/// A reader of the bytes of one instruction, which counts them.
struct Reader<I> {
    bytes: I,
    count: u8,
}

impl<I: Iterator<Item = u8>> Reader<I> {
    fn take(&mut self) -> Option<u8> {
        self.count += 1;
        if self.count > MAX_LENGTH { None } else { self.bytes.next() }
    }

    fn immediate(&mut self) -> Option<u32> {
        let bytes = [self.take()?, self.take()?, self.take()?, self.take()?];
        Some(u32::from_le_bytes(bytes))
    }

    fn skip(&mut self, bytes: u8) -> Option<()> {
        (0..bytes).try_for_each(|_| self.take().map(drop))
    }

    /// Skips the SIB byte and the displacement that follow the ModRM byte of a memory operand.
    fn skip_operand(&mut self, modrm: u8, address_bits: u8) -> Option<()> {
        let (mode, base) = (modrm >> 6, modrm & 7);
        let displacement = match (mode, address_bits) {
            (0, 16) => {
                if base == 6 {
                    2
                } else {
                    0
                }
            }
            (1, _) => 1,
            (2, 16) => 2,
            (2, _) => 4,
            _ => {
                if base == 5 {
                    4
                } else {
                    0
                }
            }
        };
        if base == 4 && address_bits != 16 {
            let sib = self.take()?;
            if mode == 0 && sib & 7 == 5 {
                return self.skip(4);
            }
        }
        self.skip(displacement)
    }
}

/// Decodes the store that `bytes` begin with. Returns `None` for any other instruction, for stores of 16 or 64 bits,
/// and if the bytes end within the instruction.
pub fn decode(bytes: impl Iterator<Item = u8>, width: Width) -> Option<Store> {
    let mut bytes = Reader { bytes, count: 0 };
    let (mut operand_size, mut address_size, mut lock, mut rex) = (false, false, false, 0);
    let opcode = loop {
        match bytes.take()? {
            0x66 => (operand_size, rex) = (true, 0),
            0x67 => (address_size, rex) = (true, 0),
            0xf0 => (lock, rex) = (true, 0),
            0x26 | 0x2e | 0x36 | 0x3e | 0x64 | 0x65 => rex = 0,
            byte @ 0x40..=0x4f if width == Width::Bits64 => rex = byte,
            opcode => break opcode,
        }
    };
    let operand_16 = operand_size != (width == Width::Bits16);
    if operand_16 || rex & 8 != 0 {
        return None; // 16 or 64 bits
    }
    let address_bits = match (width, address_size) {
        (Width::Bits64, false) => 64,
        (Width::Bits16, false) | (Width::Bits32, true) => 16,
        _ => 32,
    };
    let mut operation = Operation::Replace;
    let source = match opcode {
        0xa3 => {
            bytes.skip(address_bits / 8)?;
            Source::Register(Register::Rax)
        }
        0x09 | 0x21 | 0x31 | 0x81 | 0x83 | 0x87 | 0x89 | 0xc7 => {
            let modrm = bytes.take()?;
            if modrm >> 6 == 3 {
                return None;
            }
            bytes.skip_operand(modrm, address_bits)?;
            let field = modrm >> 3 & 7;
            let register = Register::from_number(u64::from(field | (rex & 4) << 1));
            match opcode {
                0x87 => Source::Exchange(register),
                0x89 => Source::Register(register),
                0xc7 if field != 0 => return None,
                0xc7 => Source::Immediate(bytes.immediate()?),
                0x81 => {
                    operation = Operation::numbered(field)?;
                    Source::Immediate(bytes.immediate()?)
                }
                0x83 => {
                    operation = Operation::numbered(field)?;
                    Source::Immediate(i32::from(bytes.take()?.cast_signed()).cast_unsigned())
                }
                _ => {
                    operation = Operation::numbered(opcode >> 3)?;
                    Source::Register(register)
                }
            }
        }
        _ => return None,
    };
    if lock && operation == Operation::Replace && !matches!(source, Source::Exchange(_)) {
        return None; // #UD
    }
    Some(Store { operation, source, length: bytes.count })
}
