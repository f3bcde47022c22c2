//! Interrupts that are counted one by one on two CPUs, until somebody presses a key. A debugger may stop the machine
//! meanwhile as often as it likes: no interrupt may be lost, and none may come twice.

#![expect(unsafe_code, reason = "assembly turns interrupts on and off")]

use core::arch::asm;
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

use crate::apic::{ASSERT, Apic, timer_once};
use crate::frame::Frame;
use crate::handlers::handling;
use crate::line::Line;
use crate::other::{self, Command, INTERRUPT};
use crate::serial::{Serial, say};

/// The vector of the interrupts that the first CPU sends itself.
const OWN: u8 = 0x42;
/// The vector of the timer.
const TIMER: u8 = 0x43;
/// The register of the local APIC that switches it on, and its value for that.
const SPURIOUS: u32 = 0xfee0_00f0;
const ENABLED: u64 = 0x1ff;
/// How often an interrupt is looked for. No machine takes that many loops.
const PATIENCE: u32 = 10_000_000;

/// What the first CPU has done.
struct Counts {
    /// Interrupts of its own that it has taken.
    own: AtomicU32,
    /// Interrupts of the timer that it has taken.
    timer: AtomicU32,
    /// Looks at the counts.
    turns: AtomicU32,
}

static COUNTS: Counts = Counts { own: AtomicU32::new(0), timer: AtomicU32::new(0), turns: AtomicU32::new(0) };

fn on_own(_: &mut Frame) {
    COUNTS.own.fetch_add(1, Relaxed);
    Apic::find().end_of_interrupt();
}

fn on_timer(_: &mut Frame) {
    COUNTS.timer.fetch_add(1, Relaxed);
    Apic::find().end_of_interrupt();
}

/// Returns true if `done` does. Otherwise lets interrupts come, and halts until then if `halts` is true.
fn look(halts: bool, done: impl FnOnce() -> bool) -> bool {
    // SAFETY: interrupts are on before, and their handlers return. They are off while `done` looks, so that none comes
    // between that and HLT.
    unsafe {
        asm!("cli");
        let is_done = done();
        match halts && !is_done {
            true => asm!("sti", "hlt"),
            // In QEMU one thread runs both CPUs, and PAUSE lets the other one have it.
            false => asm!("sti", "pause"),
        }
        is_done
    }
}

/// Interrupts of one kind.
struct Kind {
    name: &'static str,
    raise: fn(&Apic, u32),
    taken: fn() -> u32,
    /// Returns true if the first CPU halts until the interrupt with this number comes.
    halts: fn(u32) -> bool,
    /// How many have been raised.
    raised: u32,
    /// How many had been taken when the last one was.
    last: u32,
    lost: u32,
    doubled: u32,
}

impl Kind {
    fn new(name: &'static str, raise: fn(&Apic, u32), taken: fn() -> u32, halts: fn(u32) -> bool) -> Self {
        Self { name, raise, taken, halts, raised: 0, last: taken(), lost: 0, doubled: 0 }
    }

    /// Raises an interrupt, and waits until it has been taken.
    fn raise(&mut self, apic: &Apic) {
        let before = (self.taken)();
        self.doubled += before - self.last;
        (self.raise)(apic, self.raised);
        let halts = (self.halts)(self.raised);
        let _ = (0..PATIENCE).find(|_| {
            COUNTS.turns.fetch_add(1, Relaxed);
            look(halts, || (self.taken)() != before)
        });
        self.raised += 1;
        self.last = (self.taken)();
        match self.last - before {
            0 => self.lost += 1,
            taken => self.doubled += taken - 1,
        }
    }
}

/// Raises interrupts until a key is pressed, and shows for each kind how many were raised, lost and doubled. Before
/// that it says at which addresses the handler of the timer is, and the counts that change while each CPU runs.
pub fn counted(line: &mut Line) {
    let apic = Apic::find();
    apic.enable();
    other::prepare(&[]);
    line.item("started", other::start(&apic).0);
    other::execute(Command::Store, SPURIOUS, ENABLED);
    other::execute(Command::Enable, 0, 0);
    apic.timer_as(Some(u32::from(TIMER)));
    let kinds = handling(OWN, on_own, || {
        handling(TIMER, on_timer, || {
            // SAFETY: these interrupts have handlers.
            unsafe { asm!("sti") };
            let kinds = until_key(&apic);
            // SAFETY: this is how it was before.
            unsafe { asm!("cli") };
            kinds
        })
    });
    apic.timer_as(None);
    for Kind { name, raised, lost, doubled, taken, last, .. } in kinds {
        let doubled = doubled + taken() - last;
        line.item(name, format_args!("{raised}/{lost}/{doubled}"));
    }
}

/// Does so, while interrupts are on, and returns what has been counted.
fn until_key(apic: &Apic) -> [Kind; 3] {
    // The firmware has the timer interrupt 18 times a second. Once it has been started to fire once, that is over.
    timer_once(200);
    for _ in 0..100_000 {
        core::hint::spin_loop();
    }
    let mut kinds = [
        Kind::new("own", |apic, _| apic.interrupt_self(OWN), || COUNTS.own.load(Relaxed), |_| false),
        // The times differ, so that the interrupts come at different instructions. Every other one ends a HLT.
        Kind::new(
            "timer",
            |_, number| timer_once(200 + 7 * (number % 64) as u16),
            || COUNTS.timer.load(Relaxed),
            |number| number % 2 == 1,
        ),
        Kind::new(
            "other",
            |apic, _| apic.send(other::ID, ASSERT | u32::from(INTERRUPT)),
            || other::taken().0,
            |_| false,
        ),
    ];
    say!("counted: {:x} {:x} {:x}", on_timer as *const () as usize, &raw const COUNTS as usize, other::TURNS);
    while !Serial::is_ready() {
        kinds.iter_mut().for_each(|kind| kind.raise(apic));
    }
    kinds
}
