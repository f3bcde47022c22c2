//! The serial line, as far as Vidar speaks before and after the guest: output only, and never waiting for ever.

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
