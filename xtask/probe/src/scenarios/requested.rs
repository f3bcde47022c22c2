//! INIT on another CPU that has one interrupt in service and others requested: which of them its local APIC still has
//! afterwards, and which are still delivered.
//!
//! Intel SDM Vol. 3A, 11.4.7.3 "Local APIC State After an INIT Reset (Wait-for-SIPI State)".

use core::fmt;

use crate::apic::{ASSERT, Apic};
use crate::line::Line;
use crate::other::{self, Command, INTERRUPT};

/// The vectors of interrupts that are requested while [`INTERRUPT`] is in service. The first has a lower priority. The
/// second has a higher priority, and waits only until interrupts are enabled.
const REQUESTED: [u8; 2] = [INTERRUPT - 0x10, INTERRUPT + 0x10];

/// The offset of the spurious-interrupt vector register in the local APIC's page.
const SPURIOUS: u32 = 0xf0;
/// The offset of the in-service register. It and the interrupt request register have eight words each, 16 bytes apart.
const IN_SERVICE: u32 = 0x100;
/// The offset of the interrupt request register.
const REQUEST: u32 = 0x200;

/// The value of the spurious-interrupt vector register that enables the local APIC.
const ENABLED: u64 = 0x1ff;

/// A register with a bit for each vector. It is formatted as the vectors whose bits are set.
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

/// Leaves one interrupt in service, requests two more while interrupts are disabled, and sends INIT. Then the CPU is
/// started again, and enables its local APIC and interrupts.
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
    other::execute(Command::Store, base + SPURIOUS, ENABLED);
    other::leave_in_service(true);
    other::execute(Command::Enable, 0, 0);
    apic.send(other::ID, ASSERT | u32::from(INTERRUPT));
    line.item("taken", other::interrupts(1));
    REQUESTED.iter().for_each(|vector| apic.send(other::ID, ASSERT | u32::from(*vector)));
    show(line, "before");
    line.item("again", other::start(&apic).0);
    show(line, "after");
    other::leave_in_service(false);
    other::execute(Command::Store, base + SPURIOUS, ENABLED);
    other::execute(Command::Enable, 0, 0);
    line.item("came", other::taken().0 - 1);
    // The CPU must take interrupts as before.
    let before = other::taken().0;
    apic.send(other::ID, ASSERT | u32::from(INTERRUPT));
    line.item("then", other::interrupts(before + 1) - before);
}
