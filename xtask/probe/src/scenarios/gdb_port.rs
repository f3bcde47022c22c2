//! A guest that uses the serial port at which gdb debugs it.

#![expect(unsafe_code, reason = "the instructions under test exist only as assembly")]

use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

use crate::apic::Apic;
use crate::attempt::{Verdict, attempt};
use crate::cpu::{inb, inl, outb, outl};
use crate::frame::Frame;
use crate::handlers::handling;
use crate::line::Line;
use crate::other::{self, Command};
use crate::serial::{Serial, say};

/// The first I/O port of the UART.
const UART: u16 = 0x2f8;
/// The number of its ports.
const PORTS: u16 = 8;

/// How often it looks at least.
const LOOKS: u32 = 100;

static NMIS: AtomicU32 = AtomicU32::new(0);

fn on_nmi(_: &mut Frame) {
    NMIS.fetch_add(1, Relaxed);
}

/// Has the second CPU look for the UART until a key is pressed, while gdb may use it. Then shows what the guest reads
/// at its ports, and how many NMIs have come.
pub fn gdb_port(line: &mut Line) {
    Apic::find().enable();
    other::prepare(&[]);
    line.item("started", other::start(&Apic::find()).0);
    let (mut looks, mut missed) = (0, 0);
    handling(2, on_nmi, || {
        say!("looking: {:x}", other::look());
        while !Serial::is_ready() || looks < LOOKS && missed == 0 {
            match other::execute(Command::Look, u32::from(UART) + 1, 0) {
                Some(_) => looks += 1,
                None => missed += 1,
            }
        }
    });
    line.item("looked", u8::from(looks >= LOOKS));
    line.item("nmis", NMIS.load(Relaxed));
    (0..PORTS).for_each(|port| outb(UART + port, 0));
    let read = (0..PORTS).fold(0xff, |all, port| all & inb(UART + port));
    line.item("bytes", format_args!("{read:x}"));
    outl(UART - 2, 0);
    line.item("words", format_args!("{:x}/{:x}", inl(UART), inl(UART + PORTS - 1)));
    let mut byte = 0_u8;
    let place = &raw mut byte;
    let read = attempt!("insb"; inout("rdi") place => _, in("dx") UART);
    let written = attempt!("outsb"; inout("rsi") place => _, in("dx") UART);
    line.item("strings", format_args!("{}/{}", Verdict(read), Verdict(written)));
}
