//! The serial line, whose UART is at I/O ports.

#![expect(unsafe_code, reason = "the UART's ports are claimed here")]

use uart_16550::Uart16550;
use uart_16550::backend::PioBackend;
use vidar_core::console::serial::{Serial, Unusable};

/// A serial line whose UART is at I/O ports.
pub type Line = Serial<PioBackend>;

/// Opens the serial line whose UART is at I/O port `port`.
///
/// # Errors
/// [`Unusable`] if no UART works there.
pub fn open(port: u16) -> Result<Line, Unusable> {
    // SAFETY: by convention the ports belong to a UART, and nothing else in Vidar uses them.
    let uart = unsafe { Uart16550::new_port(port) }.map_err(|_| Unusable::Absent)?;
    Serial::on(uart)
}
