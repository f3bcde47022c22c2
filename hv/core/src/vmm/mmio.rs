//! Instructions that access the registers of a device, which Vidar emulates: MOV in both directions, XCHG, and AND, OR
//! and XOR with memory, of 32 and 64 bits. Compilers access registers with these.
//!
//! Intel SDM Vol. 2A, 2.1 "Instruction Format for Protected Mode, Real-Address Mode, and Virtual-8086 Mode" and 2.2
//! "IA-32e Mode".

use vidar_abi::ExitKind;

use super::doubt::Site;
use super::fetch::Width;
use super::machine::Machine;
use super::outcome::{Outcome, REFUSE};
use super::vcpu::Vcpu;
use crate::x86::registers::Register;

/// The operand that is not in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// A register.
    Register(Register),
    /// A register, into which XCHG loads the old value of the memory operand.
    Exchange(Register),
    /// An immediate, sign-extended.
    Immediate(u64),
}

/// How a stored value is computed.
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
    pub const fn result(self, old: u64, source: u64) -> u64 {
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

/// The size of the memory operand, which all operands have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Size {
    /// 32 bits.
    Bits32,
    /// 64 bits.
    Bits64,
}

impl Size {
    /// Returns the size in bytes.
    pub const fn bytes(self) -> u64 {
        match self {
            Self::Bits32 => 4,
            Self::Bits64 => 8,
        }
    }

    /// Returns the bits of `value` that an operand of this size has.
    const fn cut(self, value: u64) -> u64 {
        match self {
            Self::Bits32 => value & 0xffff_ffff,
            Self::Bits64 => value,
        }
    }
}

/// What an instruction does with its memory operand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// It loads it into a register.
    Load(Register),
    /// It stores to it.
    Store(Operation, Source),
}

/// An instruction that accesses memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instruction {
    /// What it does.
    pub access: Access,
    /// The size of the operands.
    pub size: Size,
    /// The length of the instruction in bytes.
    pub length: u8,
}

impl Instruction {
    /// Returns true if the instruction reads its memory operand.
    pub const fn reads(&self) -> bool {
        !matches!(self.access, Access::Store(Operation::Replace, Source::Register(_) | Source::Immediate(_)))
    }

    /// Returns true if an operand is RSP, which is not among [`Vcpu::registers`]: the VMCS or VMCB holds it. No
    /// software uses it for a device.
    const fn has_rsp(&self) -> bool {
        matches!(
            self.access,
            Access::Load(Register::Rsp)
                | Access::Store(_, Source::Register(Register::Rsp) | Source::Exchange(Register::Rsp))
        )
    }

    /// Does what the instruction does to registers and flags, where memory holds `old` and the instruction
    /// [reads](Self::reads) it. Returns what the instruction stores, if it does.
    pub fn execute<V: Vcpu>(&self, vcpu: &mut V, old: u64) -> Option<u64> {
        let old = self.size.cut(old);
        let (operation, source) = match self.access {
            Access::Load(register) => {
                vcpu.registers().set(register, old);
                return None;
            }
            Access::Store(operation, source) => (operation, source),
        };
        let operand = match source {
            Source::Immediate(value) => value,
            Source::Register(register) | Source::Exchange(register) => vcpu.registers().get(register),
        };
        if let Source::Exchange(with) = source {
            vcpu.registers().set(with, old);
        }
        let value = self.size.cut(operation.result(old, operand));
        if operation != Operation::Replace {
            vcpu.set_flags(FLAGS, flags(value, self.size));
        }
        Some(value)
    }
}

/// Returns the guest's next instruction, which has exited for its access to memory, if `can` accepts it.
///
/// # Errors
/// How the guest goes on otherwise. The instruction is executed again, as [`doubt`](crate::vmm::doubt) describes, and
/// in the end gets #GP. If the delivery of an event has made the access, no instruction has, and it is refused at once.
pub fn next<V: Vcpu, T>(
    vcpu: &mut V,
    machine: &Machine<V, T>,
    can: impl FnOnce(&Instruction) -> bool,
) -> Result<Instruction, Outcome> {
    if let Some(event) = vcpu.interrupted() {
        return Err(Outcome::refused_access(Some(event)));
    }
    let (code, controls) = (vcpu.code(), vcpu.controls());
    let bytes = code.bytes(&controls, |address| machine.guest.word(address));
    let found = decode(bytes, code.width(&controls)).filter(|found| !found.has_rsp() && can(found));
    let Some(found) = found else {
        let site = Site { kind: ExitKind::SecondStage, rip: code.rip, answered: 0 };
        if !vcpu.doubt().tries_again(site) {
            return Err(REFUSE);
        }
        vcpu.flush_second_stage();
        return Err(Outcome::Resume);
    };
    vcpu.doubt().found(code.rip);
    Ok(found)
}

/// The bits of RFLAGS that AND, OR and XOR change: OF, SF, ZF, AF, PF, CF.
pub const FLAGS: u64 = 0x8d5;

/// Returns [`FLAGS`] after AND, OR or XOR with this result. AF is undefined, and 0 here.
pub const fn flags(result: u64, size: Size) -> u64 {
    let sign = result >> (size.bytes() * 8 - 1) & 1;
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

    /// Reads an immediate of 32 bits.
    fn immediate(&mut self) -> Option<u64> {
        let bytes = [self.take()?, self.take()?, self.take()?, self.take()?];
        Some(i64::from(i32::from_le_bytes(bytes)).cast_unsigned())
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

/// Decodes the instruction that `bytes` begin with. Returns `None` for any other, for operands of 8 or 16 bits, and if
/// the bytes end within the instruction.
pub fn decode(bytes: impl Iterator<Item = u8>, width: Width) -> Option<Instruction> {
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
    let size = match (rex & 8 != 0, operand_size != (width == Width::Bits16)) {
        (true, _) => Size::Bits64,
        (_, false) => Size::Bits32,
        _ => return None, // 16 bits
    };
    let address_bits = match (width, address_size) {
        (Width::Bits64, false) => 64,
        (Width::Bits16, false) | (Width::Bits32, true) => 16,
        _ => 32,
    };
    let mut operation = Operation::Replace;
    let source = match opcode {
        0xa1 | 0xa3 => {
            bytes.skip(address_bits / 8)?;
            Source::Register(Register::Rax)
        }
        0x09 | 0x21 | 0x31 | 0x81 | 0x83 | 0x87 | 0x89 | 0x8b | 0xc7 => {
            let modrm = bytes.take()?;
            if modrm >> 6 == 3 {
                return None;
            }
            bytes.skip_operand(modrm, address_bits)?;
            let field = modrm >> 3 & 7;
            let register = Register::from_number(u64::from(field | (rex & 4) << 1));
            match opcode {
                0x87 => Source::Exchange(register),
                0x89 | 0x8b => Source::Register(register),
                0xc7 if field != 0 => return None,
                0xc7 => Source::Immediate(bytes.immediate()?),
                0x81 => {
                    operation = Operation::numbered(field)?;
                    Source::Immediate(bytes.immediate()?)
                }
                0x83 => {
                    operation = Operation::numbered(field)?;
                    Source::Immediate(i64::from(bytes.take()?.cast_signed()).cast_unsigned())
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
    let access = match (opcode, source) {
        (0xa1 | 0x8b, Source::Register(register)) => Access::Load(register),
        _ => Access::Store(operation, source),
    };
    Some(Instruction { access, size, length: bytes.count })
}
