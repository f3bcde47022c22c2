//! The serial line, as far as Vidar speaks before and after the guest: output only, and never waiting for ever.

#![cfg_attr(target_os = "none", expect(unsafe_code, reason = "the UART's ports are claimed here"))]

use uart_16550::backend::Backend;
use uart_16550::spec::registers::LSR;
use uart_16550::{BaudRate, Config, Uart16550};

/// The first I/O port of COM1.
pub const COM1: u16 = 0x3f8;

/// Looks at the UART before the line is taken for dead. Each takes about a microsecond, and at 9600 baud, as a loader may have it
/// set, 16 bytes take 17 ms.
const PATIENCE: u32 = 200_000;

/// Why there is no line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unusable {
    /// No UART answers at its ports.
    Absent,
    /// It does not send what it is given.
    Stuck,
}

/// A line that works.
pub struct Serial<B: Backend> {
    uart: Uart16550<B>,
    dead: bool,
}

impl<B: Backend> Serial<B> {
    /// Sets the line of this UART to 115,200 baud, 8 data bits, no parity.
    ///
    /// # Errors
    /// [`Unusable`] where that cannot be.
    pub fn on(mut uart: Uart16550<B>) -> Result<Self, Unusable> {
        if !uart.check_present() {
            return Err(Unusable::Absent);
        }
        // The driver waits for ever for what a loader has sent before, and some ports of management controllers never get rid
        // of it.
        if !drains(&mut uart) {
            return Err(Unusable::Stuck);
        }
        let config = Config { baud_rate: BaudRate::Baud115200, ..Config::default() };
        uart.init(config).map_err(|_| Unusable::Absent)?;
        Ok(Self { uart, dead: false })
    }

    /// Sends `text`, each line feed with a carriage return before it.
    pub fn write(&mut self, text: &[u8]) {
        for &byte in text {
            if byte == b'\n' {
                self.send(b'\r');
            }
            self.send(byte);
        }
    }

    /// Waits until the last byte has left, so that another driver may reprogram the UART.
    pub fn drain(&mut self) {
        if !self.dead {
            drains(&mut self.uart);
        }
    }

    fn send(&mut self, byte: u8) {
        let mut patience = PATIENCE;
        while !self.dead && self.uart.try_send_byte(byte).is_err() {
            patience -= 1;
            self.dead = patience == 0;
        }
    }
}

/// Returns true if the last byte leaves the UART within some time.
fn drains<B: Backend>(uart: &mut Uart16550<B>) -> bool {
    (0..PATIENCE).any(|_| uart.lsr().contains(LSR::TRANSMITTER_EMPTY))
}

#[cfg(target_os = "none")]
pub use native::Line;

#[cfg(target_os = "none")]
mod native {
    use uart_16550::Uart16550;
    use uart_16550::backend::PioBackend;

    use super::{Serial, Unusable};

    /// A line at I/O ports.
    pub type Line = Serial<PioBackend>;

    impl Line {
        /// The line at `port`.
        ///
        /// # Errors
        /// [`Unusable`] where none works there.
        pub fn open(port: u16) -> Result<Self, Unusable> {
            // SAFETY: the ports are those of a UART by convention, and nothing else in Vidar uses them.
            let uart = unsafe { Uart16550::new_port(port) }.map_err(|_| Unusable::Absent)?;
            Self::on(uart)
        }
    }
}

#[cfg(test)]
#[expect(unsafe_code, reason = "the driver's interface to a UART is unsafe")]
mod tests {
    use uart_16550::spec::registers::offsets;

    use super::*;

    /// A UART whose line status never changes.
    struct Fake {
        scratch: Option<u8>,
        line_status: LSR,
    }

    // SAFETY: it is no memory that is read and written, so any register will do.
    impl Backend for Fake {
        unsafe fn read(&mut self, register: u8) -> u8 {
            match (usize::from(register), self.scratch) {
                (offsets::SPR, Some(scratch)) => scratch,
                (offsets::LSR, Some(_)) => self.line_status.bits(),
                (_, Some(_)) => 0,
                (_, None) => 0xff,
            }
        }

        unsafe fn write(&mut self, register: u8, value: u8) {
            if usize::from(register) == offsets::SPR
                && let Some(scratch) = &mut self.scratch
            {
                *scratch = value;
            }
        }
    }

    fn opened(scratch: Option<u8>, line_status: LSR) -> Result<(), Unusable> {
        // SAFETY: the fake takes every access.
        let uart = unsafe { Uart16550::new_with_backend(Fake { scratch, line_status }) };
        Serial::on(uart).map(drop)
    }

    #[test]
    fn a_line_that_sends_nothing_is_not_waited_for() {
        assert_eq!(opened(Some(0), LSR::empty()), Err(Unusable::Stuck));
        assert_eq!(opened(Some(0), LSR::TRANSMITTER_EMPTY), Ok(()));
        assert_eq!(opened(None, LSR::empty()), Err(Unusable::Absent));
    }
}
