//! The serial line to gdb, whose UART is polled.

#![expect(unsafe_code, reason = "the UART's ports are claimed here")]

use spin::Mutex;
use uart_16550::backend::PioBackend;
use uart_16550::spec::registers::LSR;
use uart_16550::{BaudRate, Config, Uart16550};
use vidar_core::console::serial::PATIENCE;
use vidar_core::debugger::desk;

/// The line at one UART.
pub struct Line(Mutex<Uart16550<PioBackend>>);

impl Line {
    /// Opens the line whose UART is at I/O port `port`: 115,200 baud, 8 data bits, no parity. Returns `None` if no UART
    /// works there.
    pub fn open(port: u16) -> Option<Self> {
        // SAFETY: by convention the ports belong to a UART, and the caller has made sure that the log does not use them.
        let mut uart = unsafe { Uart16550::new_port(port) }.ok()?;
        if !uart.check_present() {
            return None;
        }
        uart.init(Config { baud_rate: BaudRate::Baud115200, ..Config::default() }).ok()?;
        Some(Self(Mutex::new(uart)))
    }
}

impl desk::Line for Line {
    fn is_ready(&self) -> bool {
        self.0.lock().lsr().contains(LSR::DATA_READY)
    }

    fn receive(&self) -> Option<u8> {
        self.0.lock().try_receive_byte().ok()
    }

    fn send(&self, byte: u8) {
        let mut uart = self.0.lock();
        for _ in 0..PATIENCE {
            if uart.try_send_byte(byte).is_ok() {
                return;
            }
        }
    }

    fn call_others(&self) {}
}
