//! Where CPUs stop for gdb: the first that comes talks to gdb, the others wait. All of them go on when gdb says so.

use core::convert::Infallible;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use gdbstub::conn::Connection;
use spin::Mutex;

use super::breakpoints::{Breakpoints, DebugRegisters, Int3};
use super::cpus::{Reason, Run, Slot};
use super::exceptions::{self, Expected, Shares};
use super::memory::Memory;
use super::registers::RegisterFile;
use super::session::{Next, Session};
use crate::mem::addr::Gpa;
use crate::policy::control::Controls;

/// The line to gdb, and the way to the other CPUs.
pub trait Line: Sync {
    /// Has the next byte that is received send an NMI to the boot CPU, if the line can do so.
    fn listen(&self) {}

    /// Ends what [`Line::listen`] has begun. An NMI that has come before may still be pending.
    fn silence(&self) {}

    /// Returns true if a byte that is received sends an NMI, or if none can.
    fn listens(&self) -> bool {
        true
    }

    /// Returns true if an NMI that the boot CPU gets is the line's.
    fn rings(&self) -> bool {
        false
    }

    /// Returns true if a byte has been received.
    fn is_ready(&self) -> bool;

    /// Returns the next byte that has been received, or `None` if there is none.
    fn receive(&self) -> Option<u8>;

    /// Sends a byte. Drops it if the line is dead.
    fn send(&self, byte: u8);

    /// Makes the CPU `index` exit soon, which runs the guest.
    fn call(&self, index: usize);
}

/// The line, as the crate gdbstub wants it.
#[derive(Clone)]
pub struct Sender(&'static dyn Line);

impl Connection for Sender {
    type Error = Infallible;

    fn write(&mut self, byte: u8) -> Result<(), Infallible> {
        self.0.send(byte);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Infallible> {
        Ok(())
    }
}

/// How often the line is looked at before bytes that are no packet are taken for noise. A look takes about a
/// microsecond, and a byte needs 87.
const PATIENCE: u32 = 20_000;
/// The same in a packet that has begun. Bytes may have been lost before the guest stopped, and gdb sends the packet
/// again after two seconds.
const PATIENCE_IN_PACKET: u32 = 4_000_000;
/// How often it is looked at before a CPU that does not stop is left alone. gdb then takes its thread for one that has
/// ended.
const STOPPING: u32 = 8_000_000;

/// Where the CPUs stop.
pub struct Desk {
    session: Mutex<Session<Sender>>,
    line: &'static dyn Line,
    slots: &'static [Mutex<Slot>],
    /// The guest's memory.
    pub memory: &'static (dyn Memory + Sync),
    /// The breakpoints. They change only while gdb has stopped the guest.
    breakpoints: &'static Mutex<Breakpoints>,
    /// True while all CPUs are to stop.
    halts: AtomicBool,
    /// How often gdb has had the guest go on.
    stops: AtomicU32,
    /// True from gdb's first packet until it leaves.
    attached: AtomicBool,
}

/// How a CPU goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resumed {
    /// The registers, which gdb may have changed.
    pub registers: RegisterFile,
    /// True if the CPU is to stop again after one instruction.
    pub steps: bool,
}

impl Desk {
    /// Returns the place where the CPUs of `session` stop.
    pub fn new(mut session: Session<Sender>, line: &'static dyn Line) -> Self {
        let (slots, memory) = (session.guest.cpus.0, session.guest.memory);
        let breakpoints = session.guest.breakpoints;
        session.connect(Sender(line));
        let [halts, attached] = [const { AtomicBool::new(false) }; 2];
        let (session, stops) = (Mutex::new(session), AtomicU32::new(0));
        Self { session, line, slots, memory, breakpoints, halts, stops, attached }
    }

    /// Returns how often gdb has had the guest go on. While it does not change, neither do the breakpoints.
    pub fn stops(&self) -> u32 {
        self.stops.load(Ordering::SeqCst)
    }

    /// Returns true if the CPU that asks is to stop: another has stopped.
    pub fn halts(&self) -> bool {
        self.halts.load(Ordering::SeqCst)
    }

    /// Returns true if gdb has sent something.
    pub fn is_called(&self) -> bool {
        self.line.is_ready()
    }

    /// Has the boot CPU get an NMI when gdb sends something, if the line can do so. Returns false while another CPU
    /// talks to gdb: it has silenced the line, and takes what is received. This CPU is then to stop, or to ask again.
    #[must_use]
    pub fn listen(&self) -> bool {
        if !self.line.listens() {
            let Some(_session) = self.session.try_lock() else { return false };
            self.line.listen();
        }
        true
    }

    /// Returns true if an NMI that the boot CPU gets is the line's.
    pub fn rings(&self) -> bool {
        self.line.rings()
    }

    /// Notes what the CPU `index` does now.
    pub fn note(&self, index: usize, run: Run) {
        if let Some(slot) = self.slots.get(index) {
            slot.lock().run = run;
        }
    }

    /// Returns what gdb has in the debug registers, and true if it has set INT3s.
    pub fn armed(&self) -> (Option<DebugRegisters>, bool) {
        let breakpoints = self.breakpoints.lock();
        (breakpoints.registers(), breakpoints.has_any())
    }

    /// Decides whose the #DB with the bits `dr6` is.
    pub fn whose(&self, dr6: u64, expected: Expected) -> Shares {
        exceptions::whose(dr6, &self.breakpoints.lock(), expected)
    }

    /// Decides whose the INT3 at `linear` is, which a CPU with these control registers has met.
    pub fn whose_int3(&self, linear: u64, controls: &Controls) -> Int3 {
        self.breakpoints.lock().whose(linear, controls, self.memory)
    }

    /// Lifts gdb's INT3 that is `wanted` in place of the one that is `lifted`.
    pub fn lift(&self, lifted: &mut Option<Gpa>, wanted: Option<Gpa>) {
        if lifted.is_some() || wanted.is_some() {
            self.breakpoints.lock().lift(lifted, wanted, self.memory);
        }
    }

    /// Returns true if gdb is there, so that it can be told of the guest's end.
    pub fn is_attached(&self) -> bool {
        self.attached.load(Ordering::SeqCst)
    }

    /// Stops the CPU `index`, which has these registers, and all others with it. Without a `reason` it stops because
    /// gdb calls or another CPU has stopped. `field` returns the value of a field of the CPU's VMCS or VMCB by its
    /// number. Returns when gdb has the CPU go on.
    pub fn stop(
        &self,
        index: usize,
        registers: RegisterFile,
        reason: Option<Reason>,
        field: &dyn Fn(usize) -> Option<u64>,
    ) -> Resumed {
        let Some(slot) = self.slots.get(index) else { return Resumed { registers, steps: false } };
        slot.lock().stop(registers, reason, field);
        if reason.is_some() || self.is_called() {
            self.halt_all();
        }
        loop {
            core::hint::spin_loop();
            if self.halts() {
                if let Some(mut session) = self.session.try_lock()
                    && self.halts()
                {
                    self.serve(&mut session);
                }
                // The slot is left to the CPU that talks to gdb. If this one took the lock over and over, that one
                // might never get it: in Bochs 3.0 the CPUs take turns, with a few instructions each.
                continue;
            }
            let mut slot = slot.lock();
            // While all CPUs are to stop, this one stays, even if gdb has released it before: it was too slow to leave.
            if self.halts() {
                continue;
            }
            match slot.run {
                Run::Released | Run::Stepped if slot.reason.is_some() => {
                    // gdb has not been told of this yet.
                    slot.run = Run::Stopped;
                    drop(slot);
                    self.halt_all();
                }
                Run::Released | Run::Stepped => {
                    let steps = slot.run == Run::Stepped;
                    slot.run = Run::Running;
                    return Resumed { registers: slot.registers, steps };
                }
                // The CPUs that run may be none of those that look for gdb.
                Run::Held => {
                    drop(slot);
                    if self.is_called() {
                        self.halt_all();
                    }
                }
                // Another CPU has called this one, and gdb has gone on before it came.
                Run::Stopped => slot.run = Run::Released,
                Run::Absent | Run::Running => {}
            }
        }
    }

    /// Has all CPUs stop, and calls those that run the guest, or may be about to. If two CPUs do this at once, one of
    /// them makes the calls: a CPU could take the call of the first before the second has sent its own.
    fn halt_all(&self) {
        if self.halts.swap(true, Ordering::SeqCst) {
            return;
        }
        let runs =
            |slot: &Mutex<Slot>| matches!(slot.lock().run, Run::Running | Run::Released | Run::Stepped);
        let running = self.slots.iter().enumerate().filter(|(_, slot)| runs(slot));
        running.for_each(|(index, _)| self.line.call(index));
    }

    /// Talks to gdb until the guest goes on.
    fn serve(&self, session: &mut Session<Sender>) {
        self.line.silence();
        session.guest.cpus.stop_released();
        for _ in 0..STOPPING {
            if session.guest.cpus.all_stopped() {
                break;
            }
            // This takes the time that is to pass between two looks at the CPUs.
            self.line.is_ready();
        }
        session.guest.choose_current();
        let reason = session.guest.cpus.take_reason();
        let mut next = match reason {
            Some((_, reason)) if !session.is_connected() && !reason.waits_for_gdb() => session.go_on(),
            Some((index, reason)) => session.stopped(index, reason),
            None => Next::Stopped,
        };
        let mut looks = 0;
        loop {
            if next == Next::Runs {
                break;
            }
            next = match self.line.receive() {
                Some(byte) => {
                    looks = 0;
                    let next = session.hear(byte);
                    self.attached.store(session.is_connected(), Ordering::SeqCst);
                    next
                }
                // These were bytes that mean nothing while the guest runs, or noise while gdb is not there.
                None if looks >= patience(session) && session.is_indifferent() && reason.is_none() => {
                    session.go_on()
                }
                None => {
                    looks = looks.saturating_add(1);
                    Next::Stopped
                }
            };
        }
        self.stops.fetch_add(1, Ordering::SeqCst);
        self.halts.store(false, Ordering::SeqCst);
    }
}

/// Returns how often the line is looked at before the guest goes on that has stopped because something was received.
const fn patience(session: &Session<Sender>) -> u32 {
    if session.is_spoken_to() { PATIENCE_IN_PACKET } else { PATIENCE }
}
