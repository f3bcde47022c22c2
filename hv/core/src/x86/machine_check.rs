//! Machine checks: whose one is that arrives while Vidar runs, and what the CPU says of it.
//!
//! Intel SDM Vol. 3B, 16.3 "Machine-Check MSRs"; AMD APM Vol. 2, 9.3 "Machine Check Architecture MSRs".

use core::fmt;

use super::msr::Fault;

/// IA32_MCG_CAP. Its lowest byte is the number of banks.
const MCG_CAP: u32 = 0x179;
/// IA32_MCG_STATUS.
const MCG_STATUS: u32 = 0x17a;
/// IA32_MC0_STATUS. The registers of a bank are its control, status, address and miscellaneous register.
const MC0_STATUS: u32 = 0x401;
/// Registers of a bank.
const REGISTERS: u32 = 4;

/// IA32_MCG_STATUS.RIPV: the interrupted code can be gone on with.
const RESTART_IS_VALID: u64 = 1 << 0;
/// IA32_MCG_STATUS.EIPV: the interrupted instruction has to do with the error.
const ERROR_IS_HERE: u64 = 1 << 1;

/// IA32_MCi_STATUS.VAL: the bank has an error.
const VALID: u64 = 1 << 63;
/// IA32_MCi_STATUS.ADDRV: its address register is valid.
const ADDRESS_IS_VALID: u64 = 1 << 58;

/// Whose a machine check is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// The guest's, which is to take it when it goes on.
    Guest,
    /// Vidar's: it cannot go on.
    Vidar,
}

/// Decides by IA32_MCG_STATUS, which may not be there, and by whether this CPU has a guest that can take the machine check.
///
/// Most CPUs tell all of an error, and those that it does not concern can go on where they were: that is Vidar by accident.
/// Where Vidar's own instruction is at fault it would fail again, and a second machine check before the guest has seen to
/// the first shuts the CPU down. Intel SDM Vol. 3B, 16.3.1.2 "IA32_MCG_STATUS MSR".
pub fn owner(status: Result<u64, Fault>, has_guest: bool) -> Owner {
    match status {
        Ok(status) if has_guest && status & (RESTART_IS_VALID | ERROR_IS_HERE) == RESTART_IS_VALID => {
            Owner::Guest
        }
        _ => Owner::Vidar,
    }
}

/// What the machine-check registers hold, read as it is written.
pub struct Banks<R>(R);

impl<R: Fn(u32) -> Result<u64, Fault>> Banks<R> {
    /// The registers that `read` reads.
    pub const fn new(read: R) -> Self {
        Self(read)
    }

    /// IA32_MCG_STATUS.
    pub fn status(&self) -> Result<u64, Fault> {
        (self.0)(MCG_STATUS)
    }
}

impl<R: Fn(u32) -> Result<u64, Fault>> fmt::Display for Banks<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let read = |index| (self.0)(index).unwrap_or(0);
        write!(f, "MCG_STATUS {:#x}", read(MCG_STATUS))?;
        for bank in 0..read(MCG_CAP) as u32 & 0xff {
            let register = MC0_STATUS + bank * REGISTERS;
            let status = read(register);
            if status & VALID != 0 {
                write!(f, ", bank {bank} status {status:#x}")?;
                if status & ADDRESS_IS_VALID != 0 {
                    write!(f, " address {:#x}", read(register + 1))?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use super::*;

    #[test]
    fn what_vidar_can_go_on_after_is_the_guests() {
        for (status, has_guest, expected) in [
            (Ok(0b101), true, Owner::Guest),
            (Ok(0b101), false, Owner::Vidar),
            (Ok(0b111), true, Owner::Vidar),
            (Ok(0b100), true, Owner::Vidar),
            (Ok(0b110), true, Owner::Vidar),
            (Err(Fault), true, Owner::Vidar),
        ] {
            assert_eq!(owner(status, has_guest), expected, "{status:x?}");
        }
    }

    #[test]
    fn the_banks_with_an_error_are_told() {
        let read = |index| match index {
            MCG_CAP => Ok(0x103),
            MCG_STATUS => Ok(5),
            0x401 => Ok(0x1234),
            0x405 => Ok(VALID | 0x11),
            0x409 => Ok(VALID | ADDRESS_IS_VALID | 0x12),
            0x40a => Ok(0xabc0),
            _ => Err(Fault),
        };
        assert_eq!(
            Banks::new(read).to_string(),
            "MCG_STATUS 0x5, bank 1 status 0x8000000000000011, bank 2 status 0x8400000000000012 address 0xabc0"
        );
        assert_eq!(Banks::new(|_| Err(Fault)).to_string(), "MCG_STATUS 0x0");
    }
}
