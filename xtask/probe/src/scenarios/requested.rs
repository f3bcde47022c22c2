//! INIT on another CPU while interrupts are on their way to it: what its local APIC then holds of them, and what still comes.
//!
//! Intel SDM Vol. 3A, 11.4.7.3 "Local APIC State After an INIT Reset (Wait-for-SIPI State)".

use core::fmt;

use crate::apic::{ASSERT, Apic};
use crate::line::Line;
use crate::other::{self, Command, INTERRUPT};

/// Interrupts that are requested while that of [`INTERRUPT`] is in service: one that would have to wait for its end, and one that
/// waits for interrupts to be let in.
const REQUESTED: [u8; 2] = [INTERRUPT - 0x10, INTERRUPT + 0x10];

/// Offsets of registers in the APIC's page. Of in-service and requested interrupts there are eight each, 16 bytes apart.
const SPURIOUS: u32 = 0xf0;
const IN_SERVICE: u32 = 0x100;
const REQUEST: u32 = 0x200;

/// The APIC is on, as software switches it on.
const ON: u64 = 0x1ff;

/// The vectors whose bits are set.
struct Vectors([u32; 8]);

impl fmt::Display for Vectors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut set = (0_u8..=255).filter(|vector| self.0[usize::from(vector / 32)] >> (vector % 32) & 1 == 1).peekable();
        if set.peek().is_none() {
            return f.write_str("none");
        }
        while let Some(vector) = set.next() {
            write!(f, "{vector:x}{}", if set.peek().is_some() { "," } else { "" })?;
        }
        Ok(())
    }
}

/// One interrupt is in service, two more are requested, and the CPU lets none in. After INIT it is started again, switches its APIC
/// on, and lets interrupts in.
pub fn requested(line: &mut Line) {
    let apic = Apic::find();
    let base = apic.base() as u32;
    let vectors = |first: u32| {
        let word = |index: usize| other::execute(Command::Load, base + first + 0x10 * index as u32, 0).unwrap_or(0) as u32;
        Vectors(core::array::from_fn(word))
    };
    let show = |line: &mut Line, when: &str| {
        line.item(format_args!("in-service-{when}"), vectors(IN_SERVICE));
        line.item(format_args!("requested-{when}"), vectors(REQUEST));
    };
    other::prepare(&[]);
    line.item("started", other::start(&apic).0);
    other::execute(Command::Store, base + SPURIOUS, ON);
    other::leave_in_service(true);
    other::execute(Command::Enable, 0, 0);
    apic.send(other::ID, ASSERT | u32::from(INTERRUPT));
    line.item("taken", other::interrupts(1));
    REQUESTED.iter().for_each(|vector| apic.send(other::ID, ASSERT | u32::from(*vector)));
    show(line, "before");
    line.item("again", other::start(&apic).0);
    show(line, "after");
    other::leave_in_service(false);
    other::execute(Command::Store, base + SPURIOUS, ON);
    other::execute(Command::Enable, 0, 0);
    line.item("came", other::taken().0 - 1);
    // It takes interrupts as before.
    let before = other::taken().0;
    apic.send(other::ID, ASSERT | u32::from(INTERRUPT));
    line.item("then", other::interrupts(before + 1) - before);
}
