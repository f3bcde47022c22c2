//! The guest's CPUs as the debugger knows them: which of them are stopped, with which registers, why, and how each goes
//! on. A CPU that stops writes its registers here and takes them back when it goes on, so whichever CPU talks to gdb
//! can show and change those of all.

use gdbstub::common::{Signal, Tid};
use gdbstub::stub::MultiThreadStopReason;
use spin::Mutex;

use super::registers::RegisterFile;
use super::structure::Values;
use super::watch::Watch;

/// Why a CPU has stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// It is at the kernel's first instruction.
    Start,
    /// gdb has asked for it, or is about to connect.
    Interrupt,
    /// It has executed the instruction that it was to execute.
    Step,
    /// It has reached an INT3 of gdb's.
    Software,
    /// It has done what a debug register watches.
    Hardware(Watch),
    /// The guest cannot go on.
    Crash,
}

impl Reason {
    /// Returns true if the CPU stops for this reason again when it goes on, unless gdb has removed the breakpoint
    /// meanwhile. Such a reason need not be told to gdb if another CPU has stopped as well.
    pub const fn comes_again(self) -> bool {
        matches!(self, Self::Software | Self::Hardware(Watch { kind: None, .. }))
    }

    /// Returns true if a CPU that stops for this reason waits for gdb to come. For any other reason gdb must be there:
    /// if it has left meanwhile, the CPU goes on.
    pub const fn waits_for_gdb(self) -> bool {
        matches!(self, Self::Start | Self::Interrupt)
    }

    /// Returns the reason in the terms of the crate gdbstub, for the CPU `thread`.
    pub fn stop(self, thread: Tid) -> MultiThreadStopReason<u64> {
        let signal = |signal| MultiThreadStopReason::SignalWithThread { tid: thread, signal };
        match self {
            Self::Start | Self::Step => signal(Signal::SIGTRAP),
            Self::Interrupt => signal(Signal::SIGINT),
            Self::Crash => signal(Signal::SIGABRT),
            Self::Software => MultiThreadStopReason::SwBreak(thread),
            Self::Hardware(Watch { kind: None, .. }) => MultiThreadStopReason::HwBreak(thread),
            Self::Hardware(Watch { address, kind: Some(kind), .. }) => {
                MultiThreadStopReason::Watch { tid: thread, kind, addr: address }
            }
        }
    }
}

/// What a CPU does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Run {
    /// It does not run the guest: it waits for its start-up IPI, or it has not come up.
    #[default]
    Absent,
    /// It runs the guest.
    Running,
    /// It is stopped.
    Stopped,
    /// It is stopped, and stays so while gdb has others go on.
    Held,
    /// It is stopped, and is to go on.
    Released,
    /// It is stopped, and is to execute one instruction.
    Stepped,
}

/// One CPU.
#[derive(Debug, Clone, Copy, Default)]
pub struct Slot {
    /// What the CPU does.
    pub run: Run,
    /// The registers of the CPU while it is stopped.
    pub registers: RegisterFile,
    /// The VMCS or the VMCB of the CPU, as it was when the CPU stopped.
    pub structure: Values,
    /// Why the CPU has stopped, if that has not been told to gdb yet.
    pub reason: Option<Reason>,
}

impl Slot {
    /// Notes that the CPU has stopped with these registers, and takes the values of its VMCS or VMCB from `field`.
    pub fn stop(
        &mut self,
        registers: RegisterFile,
        reason: Option<Reason>,
        field: &dyn Fn(usize) -> Option<u64>,
    ) {
        (self.run, self.registers, self.reason) = (Run::Stopped, registers, reason);
        self.structure.fill(field);
    }
}

/// All CPUs, by their numbers.
#[derive(Debug)]
pub struct Cpus(pub &'static [Mutex<Slot>]);

impl Cpus {
    /// Returns the thread that stands for the CPU `index`, by the number that gdb has for it.
    pub const fn thread(index: usize) -> Tid {
        match Tid::new(index.wrapping_add(1)) {
            Some(thread) => thread,
            None => Tid::MIN,
        }
    }

    /// Returns the slot of the CPU that `thread` stands for.
    pub fn of(&self, thread: Tid) -> Option<&'static Mutex<Slot>> {
        self.0.get(thread.get() - 1)
    }

    /// Returns true if no CPU runs the guest.
    pub fn all_stopped(&self) -> bool {
        self.0.iter().all(|slot| slot.lock().run != Run::Running)
    }

    /// Stops the CPUs again that gdb has released and that have not left yet.
    pub fn stop_released(&self) {
        for slot in self.0 {
            let mut slot = slot.lock();
            if matches!(slot.run, Run::Released | Run::Stepped) {
                slot.run = Run::Stopped;
            }
        }
    }

    /// Returns the numbers of the CPUs that are stopped.
    pub fn stopped(&self) -> impl Iterator<Item = usize> {
        self.0
            .iter()
            .enumerate()
            .filter(|(_, slot)| matches!(slot.lock().run, Run::Stopped | Run::Held))
            .map(|(index, _)| index)
    }

    /// Returns the CPU whose reason is to be told to gdb, and the reason, and forgets the reasons of the others that
    /// come again. A reason that cannot come again is told first.
    pub fn take_reason(&self) -> Option<(usize, Reason)> {
        let reasons =
            || self.0.iter().enumerate().filter_map(|(index, slot)| Some((index, slot.lock().reason?)));
        let chosen = reasons().find(|(_, reason)| !reason.comes_again()).or_else(|| reasons().next());
        for (index, slot) in self.0.iter().enumerate() {
            let mut slot = slot.lock();
            let told = chosen.is_some_and(|(chosen, _)| chosen == index);
            if told || slot.reason.is_some_and(Reason::comes_again) {
                slot.reason = None;
            }
        }
        chosen
    }
}

#[cfg(test)]
mod tests {
    use gdbstub::target::ext::breakpoints::WatchKind;

    use super::*;

    const EXECUTED: Reason = Reason::Hardware(Watch { address: 0x1000, size: 1, kind: None });
    const WRITTEN: Reason =
        Reason::Hardware(Watch { address: 0x2000, size: 4, kind: Some(WatchKind::Write) });

    fn cpus(reasons: &[Option<Reason>]) -> Cpus {
        let slot = |reason: &Option<Reason>| {
            Mutex::new(Slot { run: Run::Stopped, reason: *reason, ..Slot::default() })
        };
        Cpus(reasons.iter().map(slot).collect::<Vec<_>>().leak())
    }

    #[test]
    fn each_reason_that_does_not_come_again_is_told() {
        let cpus = cpus(&[Some(Reason::Software), Some(WRITTEN), None, Some(Reason::Step), Some(EXECUTED)]);
        assert_eq!(cpus.take_reason(), Some((1, WRITTEN)));
        assert_eq!(cpus.take_reason(), Some((3, Reason::Step)));
        assert_eq!(cpus.take_reason(), None);
    }

    #[test]
    fn one_of_several_breakpoints_is_told() {
        let cpus = cpus(&[None, Some(EXECUTED), Some(Reason::Software)]);
        assert_eq!(cpus.take_reason(), Some((1, EXECUTED)));
        assert_eq!(cpus.take_reason(), None);
    }

    #[test]
    fn threads_are_the_numbers_of_cpus_from_1_on() {
        let cpus = cpus(&[None, None]);
        assert_eq!((Cpus::thread(0).get(), Cpus::thread(1).get()), (1, 2));
        assert!(cpus.of(Cpus::thread(1)).is_some() && cpus.of(Cpus::thread(2)).is_none());
        cpus.0[0].lock().run = Run::Running;
        assert!(!cpus.all_stopped());
        assert_eq!(cpus.stopped().collect::<Vec<_>>(), [1]);
    }
}
