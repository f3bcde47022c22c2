//! The serial line on a fake UART.

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

// SAFETY: the fake accesses no memory, so any register may be read and written.
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
fn line_that_does_not_send_is_not_used() {
    assert_eq!(opened(Some(0), LSR::empty()), Err(Unusable::Stuck));
    assert_eq!(opened(Some(0), LSR::TRANSMITTER_EMPTY), Ok(()));
    assert_eq!(opened(None, LSR::empty()), Err(Unusable::Absent));
}
