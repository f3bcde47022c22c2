//! The serial line COM1, by polling. All that the probe prints goes there.

use core::fmt::{self, Write};

use crate::cpu::{inb, outb};

const COM1: u16 = 0x3f8;
const LINE_CONTROL: u16 = COM1 + 3;
const LINE_STATUS: u16 = COM1 + 5;

const DATA_READY: u8 = 1 << 0;
const TRANSMIT_HOLDING_EMPTY: u8 = 1 << 5;
const TRANSMITTER_EMPTY: u8 = 1 << 6;

/// The first serial port.
pub struct Serial;

impl Serial {
    /// Sets the port to 115200 baud, eight bits, no parity and one stop bit, without interrupts.
    pub fn init() {
        outb(COM1 + 1, 0);
        outb(LINE_CONTROL, 0x80);
        outb(COM1, 1);
        outb(COM1 + 1, 0);
        outb(LINE_CONTROL, 0x03);
        outb(COM1 + 2, 0x07);
        outb(COM1 + 4, 0x0b);
    }

    /// Waits until the port has sent everything, so that nothing is lost when the machine is switched off.
    pub fn drain() {
        while inb(LINE_STATUS) & TRANSMITTER_EMPTY == 0 {}
    }

    /// Returns true if the port has received something.
    pub fn is_ready() -> bool {
        inb(LINE_STATUS) & DATA_READY != 0
    }

    fn byte(byte: u8) {
        while inb(LINE_STATUS) & TRANSMIT_HOLDING_EMPTY == 0 {}
        outb(COM1, byte);
    }
}

impl Write for Serial {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            if byte == b'\n' {
                Self::byte(b'\r');
            }
            Self::byte(byte);
        }
        Ok(())
    }
}

/// Prints one line.
macro_rules! say {
    ($($argument:tt)*) => {{
        use core::fmt::Write as _;
        // The port cannot fail.
        let _ = writeln!($crate::serial::Serial, $($argument)*);
    }};
}
pub(crate) use say;
