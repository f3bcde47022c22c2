//! The serial line, on a UART that a test makes up.

#![expect(unsafe_code, reason = "the driver's interface to a UART is unsafe")]

use uart_16550::Uart16550;
use uart_16550::backend::Backend;
use uart_16550::spec::registers::{LSR, offsets};
use vidar_core::console::serial::{Serial, Unusable};

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
