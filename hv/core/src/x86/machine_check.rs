//! Machine checks that arrive while Vidar runs: decides if they are the guest's, and describes the errors that the CPU
//! reports.
//!
//! Intel SDM Vol. 3B, 16.3 "Machine-Check MSRs"; AMD APM Vol. 2, 9.3 "Machine Check Architecture MSRs".

use core::fmt;

use super::msr::Fault;

/// IA32_MCG_CAP. Bits 7:0 are the number of banks.
const MCG_CAP: u32 = 0x179;
/// IA32_MCG_STATUS.
const MCG_STATUS: u32 = 0x17a;
/// IA32_MC0_STATUS. The registers of a bank are, in this order: control, status, address and miscellaneous.
const MC0_STATUS: u32 = 0x401;
/// The number of registers of a bank.
const REGISTERS: u32 = 4;

/// IA32_MCG_STATUS.RIPV: the interrupted program can be restarted.
const RESTART_IS_VALID: u64 = 1 << 0;
/// IA32_MCG_STATUS.EIPV: the interrupted instruction is directly associated with the error.
const ERROR_IS_HERE: u64 = 1 << 1;

/// IA32_MCi_STATUS.VAL: the bank reports an error.
const VALID: u64 = 1 << 63;
/// IA32_MCi_STATUS.ADDRV: the bank's address register is valid.
const ADDRESS_IS_VALID: u64 = 1 << 58;

/// Who must take a machine check that arrived while Vidar ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// The guest takes it with its next entry.
    Guest,
    /// Vidar takes it, and cannot go on.
    Vidar,
}

/// Decides who must take a machine check. `status` is the value of IA32_MCG_STATUS, or [`Fault`] if the MSR does not
/// exist. `has_guest` says that this CPU has a guest that can take the machine check.
///
/// A machine check usually reaches all CPUs, and those that the error does not concern can be restarted. If Vidar can
/// be restarted, it ran only by chance, and the guest takes the machine check. If an instruction of Vidar is associated
/// with the error, it would fail again, and a second machine check before the guest has handled the first shuts the CPU
/// down. Intel SDM Vol. 3B, 16.3.1.2 "IA32_MCG_STATUS MSR".
pub fn owner(status: Result<u64, Fault>, has_guest: bool) -> Owner {
    match status {
        Ok(status) if has_guest && status & (RESTART_IS_VALID | ERROR_IS_HERE) == RESTART_IS_VALID => {
            Owner::Guest
        }
        _ => Owner::Vidar,
    }
}

/// The machine-check registers. Formatting reads them, and writes IA32_MCG_STATUS and each bank that reports an error.
pub struct Banks<R>(R);

impl<R: Fn(u32) -> Result<u64, Fault>> Banks<R> {
    /// Returns the machine-check registers. `read` executes RDMSR.
    pub const fn new(read: R) -> Self {
        Self(read)
    }

    /// Reads IA32_MCG_STATUS.
    ///
    /// # Errors
    /// Returns [`Fault`] if the CPU raises #GP.
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
    fn the_guest_takes_a_machine_check_if_vidar_can_be_restarted() {
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
    fn banks_that_report_an_error_are_described() {
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
