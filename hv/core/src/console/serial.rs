//! The serial line for Vidar's own output, before the guest runs and after it has ended. No wait is endless.

use uart_16550::backend::Backend;
use uart_16550::spec::registers::LSR;
use uart_16550::{BaudRate, Config, Uart16550};

/// First I/O port of COM1.
pub const COM1: u16 = 0x3f8;

/// Number of polls of the UART before the line is taken for dead. A poll takes about a microsecond, and 16 bytes take
/// 17 ms at 9600 baud, to which a boot loader may have set the line.
pub const PATIENCE: u32 = 200_000;

/// The reasons why a serial line cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unusable {
    /// No UART answers at the I/O ports.
    Absent,
    /// The UART does not send what it holds.
    Stuck,
}

/// A serial line that works, as far as [`Serial::on`] can tell.
pub struct Serial<B: Backend> {
    uart: Uart16550<B>,
    dead: bool,
}

impl<B: Backend> Serial<B> {
    /// Opens the line of this UART: 115,200 baud, 8 data bits, no parity.
    ///
    /// # Errors
    /// [`Unusable`] if there is no UART or if it does not send.
    pub fn on(mut uart: Uart16550<B>) -> Result<Self, Unusable> {
        if !uart.check_present() {
            return Err(Unusable::Absent);
        }
        // `Uart16550::init` waits until the bytes that the boot loader has written are sent, and some ports of
        // management controllers never send them.
        if !drains(&mut uart) {
            return Err(Unusable::Stuck);
        }
        let config = Config { baud_rate: BaudRate::Baud115200, ..Config::default() };
        uart.init(config).map_err(|_| Unusable::Absent)?;
        Ok(Self { uart, dead: false })
    }

    /// Sends `text`, with a carriage return before each line feed. Drops it if the line is dead.
    pub fn write(&mut self, text: &[u8]) {
        for &byte in text {
            if byte == b'\n' {
                self.send(b'\r');
            }
            self.send(byte);
        }
    }

    /// Waits until the last byte has been sent, so that another driver may reprogram the UART.
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

/// Returns true if the UART has sent its last byte before [`PATIENCE`] runs out.
fn drains<B: Backend>(uart: &mut Uart16550<B>) -> bool {
    (0..PATIENCE).any(|_| uart.lsr().contains(LSR::TRANSMITTER_EMPTY))
}
