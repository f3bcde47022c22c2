//! The serial line, as far as Vidar speaks before and after the guest: output only, and never waiting for ever.

#![expect(unsafe_code, reason = "the UART's ports are claimed here")]

use uart_16550::backend::PioBackend;
use uart_16550::spec::registers::LSR;
use uart_16550::{BaudRate, Config, Uart16550};

/// The first I/O port of COM1.
pub const COM1: u16 = 0x3f8;

/// Attempts to send one byte before the line is taken for dead. At 115,200 baud a byte takes 87 microseconds.
const PATIENCE: u32 = 200_000;

/// A line that works.
pub struct Serial {
    uart: Uart16550<PioBackend>,
    dead: bool,
}

impl Serial {
    /// Sets the line at `port` to 115,200 baud, 8 data bits, no parity; `None` where no UART answers.
    pub fn open(port: u16) -> Option<Self> {
        // SAFETY: the ports are those of a UART by convention, and nothing else in Vidar uses them.
        let mut uart = unsafe { Uart16550::new_port(port) }.ok()?;
        let config = Config { baud_rate: BaudRate::Baud115200, ..Config::default() };
        uart.init(config).ok()?;
        Some(Self { uart, dead: false })
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
        let mut patience = PATIENCE;
        while !self.dead && patience > 0 && !self.uart.lsr().contains(LSR::TRANSMITTER_EMPTY) {
            patience -= 1;
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
