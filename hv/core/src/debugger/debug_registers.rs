//! The debug registers as the guest sees them. The guest's MOVs read and write these, and they are in the CPU as long
//! as gdb does not need the CPU's.

use super::breakpoints::{DebugRegisters, NO_BREAKPOINTS};
use crate::x86::msr::Fault;
use crate::x86::registers::Register;

/// The bits of DR6 that name conditions: B0 to B3, BD, BS and BT.
pub const CONDITIONS: u64 = 0xf | 0b111 << 13;
/// The bits of DR6 that are always 1.
const DR6_ONES: u64 = 0xffff_0ff0;
/// The bits of DR7 that can be changed: all but 11, 12, 14, 15.
const DR7_BITS: u64 = 0xffff_27ff;
/// DR6.BD: a MOV of a debug register, while DR7.GD is set.
pub const DETECTED: u64 = 1 << 13;
/// DR7.GD: any MOV of a debug register raises #DB. It is not loaded into the CPU, where the MOVs exit instead.
const GENERAL_DETECT: u64 = 1 << 13;

/// The debug registers as the guest sees them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GuestDebugRegisters {
    /// DR0 to DR3.
    pub addresses: [u64; 4],
    /// DR6.
    pub status: u64,
    /// DR7.
    pub control: u64,
}

impl GuestDebugRegisters {
    /// The values after a reset.
    pub const RESET: Self = Self { addresses: [0; 4], status: DR6_ONES, control: NO_BREAKPOINTS };

    /// Returns the debug register `number`, where 4 and 5 stand for 6 and 7.
    pub const fn read(&self, number: u8) -> u64 {
        match number {
            0..4 => self.addresses[number as usize],
            4 | 6 => self.status,
            _ => self.control,
        }
    }

    /// Writes the debug register `number`.
    ///
    /// # Errors
    /// [`Fault`] if the CPU raises #GP, as it does for the upper half of DR6 and DR7. Intel SDM Vol. 3B, 18.2.6 "Debug
    /// Registers and Intel 64 Processors".
    pub const fn write(&mut self, number: u8, value: u64) -> Result<(), Fault> {
        if number < 4 {
            self.addresses[number as usize] = value;
            return Ok(());
        }
        if value >> 32 != 0 {
            return Err(Fault);
        }
        match number {
            4 | 6 => self.status = value & CONDITIONS | DR6_ONES,
            _ => self.control = value & DR7_BITS | NO_BREAKPOINTS,
        }
        Ok(())
    }

    /// Notes the conditions of a #DB that the guest is to handle: the CPU sets their bits in DR6, and clears DR7.GD.
    pub const fn raise(&mut self, conditions: u64) {
        self.status = self.status & !0xf | conditions & CONDITIONS | DR6_ONES;
        self.control &= !GENERAL_DETECT;
    }

    /// Returns true if a MOV of a debug register raises #DB.
    pub const fn detects_moves(&self) -> bool {
        self.control & GENERAL_DETECT != 0
    }

    /// Returns what the CPU's registers hold while gdb does not need them.
    pub const fn loaded(&self) -> DebugRegisters {
        DebugRegisters { addresses: self.addresses, control: self.control & !GENERAL_DETECT }
    }

    /// Executes a MOV to or from a debug register. `general` is the value of the general-purpose register. Returns its
    /// new value.
    ///
    /// # Errors
    /// [`Fault`] as [`GuestDebugRegisters::write`] returns it.
    pub fn execute(&mut self, access: Access, general: u64) -> Result<u64, Fault> {
        if access.writes {
            self.write(access.number, general)?;
            Ok(general)
        } else {
            Ok(self.read(access.number))
        }
    }
}

/// A MOV to or from a debug register.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access {
    /// The number of the debug register, 0 to 7.
    pub number: u8,
    /// True for a write of the debug register, and false for a read.
    pub writes: bool,
    /// The general-purpose register, of which all 64 bits are read or written.
    pub register: Register,
    /// The length of the instruction in bytes.
    pub length: u8,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guest_reads_what_it_has_written() {
        let mut guest = GuestDebugRegisters::RESET;
        let access = |number, writes| Access { number, writes, register: Register::Rax, length: 3 };
        for (number, value, read) in [
            (0, u64::MAX, u64::MAX),
            (3, 7, 7),
            (6, 0, 0xffff_0ff0),
            (7, 0xffff_ffff, 0xffff_27ff),
            (5, 0, 0x400),
        ] {
            assert_eq!(guest.execute(access(number, true), value), Ok(value));
            assert_eq!(guest.execute(access(number, false), 0), Ok(read), "DR{number}");
        }
        assert_eq!(guest.execute(access(7, true), 1 << 32), Err(Fault));
        assert!(!guest.detects_moves());
        guest.write(7, 0x2000).expect("GD exists");
        assert!(guest.detects_moves());
        assert_eq!(guest.loaded().control, 0x400, "the CPU does not get GD");
        guest.raise(0x4001);
        assert_eq!([guest.read(6), guest.read(7)], [0xffff_4ff1, 0x400]);
    }
}
