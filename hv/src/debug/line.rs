//! The serial line at I/O ports.

#![expect(unsafe_code, reason = "the UART's ports are claimed here")]

use uart_16550::Uart16550;
use uart_16550::backend::PioBackend;
use vidar_core::console::serial::{Serial, Unusable};

/// A line at I/O ports.
pub type Line = Serial<PioBackend>;

/// Opens the line at `port`.
///
/// # Errors
/// [`Unusable`] where none works there.
pub fn open(port: u16) -> Result<Line, Unusable> {
    // SAFETY: the ports are those of a UART by convention, and nothing else in Vidar uses them.
    let uart = unsafe { Uart16550::new_port(port) }.map_err(|_| Unusable::Absent)?;
    Serial::on(uart)
}
