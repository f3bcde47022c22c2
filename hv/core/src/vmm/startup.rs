//! The state of a CPU between INIT and start-up IPI, if Vidar starts CPUs and not the local APICs by themselves. Intel
//! SDM Vol. 3A, 9.4.4 "MP Initialization Example".

use core::sync::atomic::{AtomicU32, Ordering};

/// The CPU runs. Values below this are vectors at which the CPU is about to start.
const RUNNING: u32 = 0x100;
/// The CPU waits for a start-up IPI.
const WAITING: u32 = 0x200;
/// The bit beside one of these that says that a call to the CPU has not arrived yet.
const CALLED: u32 = 0x400;

/// The state of one CPU: it runs, waits for a start-up IPI, or is about to start at a vector. The CPUs that send
/// messages change it, and call the CPU, so that it exits and looks at it. A state that changes before the call has
/// arrived needs no other.
#[derive(Debug)]
pub struct StartupState(AtomicU32);

impl StartupState {
    /// Returns the state of a CPU that runs.
    pub const fn running() -> Self {
        Self(AtomicU32::new(RUNNING))
    }

    /// Marks the CPU as waiting, since another CPU sends it an INIT. Returns true if the CPU must be called. While a
    /// call is on its way it is called once more, in case that one was lost. The two become one, or the second finds
    /// the CPU waiting.
    #[must_use]
    pub fn init(&self) -> bool {
        let next = |state| (state != WAITING).then_some(WAITING | CALLED);
        self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, next).is_ok()
    }

    /// Marks a CPU that waits as about to start at `vector`, since another CPU sends it a start-up IPI. Returns true if
    /// the CPU must be called. A CPU that runs ignores start-up IPIs. If several arrive before the CPU runs, the first
    /// decides, since a bare CPU would start with it.
    #[must_use]
    pub fn startup(&self, vector: u8) -> bool {
        let next = |state| (state & !CALLED == WAITING).then_some(u32::from(vector) | CALLED);
        self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, next).is_ok_and(|before| before & CALLED == 0)
    }

    /// Marks the CPU as waiting before it has run the guest.
    pub fn wait(&self) {
        self.0.store(WAITING, Ordering::SeqCst);
    }

    /// Marks the boot CPU, which waits for nothing after an INIT, as running.
    pub fn run(&self) {
        self.0.store(RUNNING, Ordering::SeqCst);
    }

    /// Notes that a call has arrived. Returns false if none was on its way: an INIT has come that no local APIC has
    /// sent. Such an INIT takes a CPU that runs.
    pub fn arrived(&self) -> bool {
        let called = self.0.fetch_and(!CALLED, Ordering::SeqCst) & CALLED != 0;
        if !called {
            let _ = self.0.compare_exchange(RUNNING, WAITING, Ordering::SeqCst, Ordering::SeqCst);
        }
        called
    }

    /// Returns true if a call to the CPU has not arrived yet.
    pub fn is_called(&self) -> bool {
        self.0.load(Ordering::SeqCst) & CALLED != 0
    }

    /// Marks a CPU that is about to start as running, and returns the vector at which it starts. Returns `None` if it
    /// waits, and also while a call is on its way, which would reach it in the guest.
    pub fn take(&self) -> Option<u8> {
        let state = self.0.load(Ordering::SeqCst);
        let vector = u8::try_from(state).ok()?;
        self.0.compare_exchange(state, RUNNING, Ordering::SeqCst, Ordering::SeqCst).ok().map(|_| vector)
    }

    /// Returns true if the CPU waits for a start-up IPI.
    pub fn is_waiting(&self) -> bool {
        self.0.load(Ordering::SeqCst) & !CALLED == WAITING
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The model: a bare CPU takes every INIT at once, and a start-up IPI only while it waits.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum Bare {
        Running { since: Option<u8> },
        Waiting,
    }

    #[derive(Debug, Clone, Copy)]
    enum Step {
        Init,
        /// An INIT that no local APIC has sent.
        Wire,
        Startup(u8),
        /// A call reaches the CPU, if one is on its way.
        Arrive,
        /// The CPU looks if it is to start.
        Take,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            2 => Just(Step::Init),
            1 => Just(Step::Wire),
            3 => any::<u8>().prop_map(Step::Startup),
            3 => Just(Step::Arrive),
            3 => Just(Step::Take),
        ]
    }

    proptest! {
        /// A CPU that takes its messages late ends in the same state as a bare CPU, which takes them at once. No call
        /// reaches a CPU that runs on.
        #[test]
        fn a_cpu_ends_in_the_state_of_a_bare_cpu(steps in proptest::collection::vec(step(), 0..40)) {
            let startup = StartupState::running();
            let mut bare = Bare::Running { since: None };
            // The CPU itself, and the calls that are on their way to it.
            let mut cpu = Bare::Running { since: None };
            let mut calls = 0;
            let last = [Step::Arrive, Step::Take];
            for step in steps.into_iter().chain(last) {
                match step {
                    Step::Init => {
                        // Two NMIs that a CPU has not taken are one.
                        calls = if startup.init() { 1 } else { calls };
                        bare = Bare::Waiting;
                    }
                    // Nobody sends one while a call is on its way: it could not be told from that.
                    Step::Wire if calls == 0 => {
                        prop_assert!(!startup.arrived());
                        if let Bare::Running { .. } = cpu {
                            (bare, cpu) = (Bare::Waiting, Bare::Waiting);
                        }
                    }
                    Step::Wire => {}
                    Step::Startup(vector) => {
                        calls += u32::from(startup.startup(vector));
                        if bare == Bare::Waiting {
                            bare = Bare::Running { since: Some(vector) };
                        }
                    }
                    Step::Arrive if calls > 0 => {
                        calls -= 1;
                        prop_assert_ne!(startup.0.load(Ordering::SeqCst) & !CALLED, RUNNING);
                        prop_assert!(startup.arrived());
                        cpu = Bare::Waiting;
                    }
                    Step::Arrive => {}
                    Step::Take if cpu == Bare::Waiting => {
                        if let Some(vector) = startup.take() {
                            cpu = Bare::Running { since: Some(vector) };
                            prop_assert_eq!(cpu, bare);
                        }
                    }
                    Step::Take => {}
                }
                prop_assert!(calls <= 1);
                prop_assert_eq!(startup.is_called(), calls == 1);
                prop_assert_eq!(startup.is_waiting(), bare == Bare::Waiting);
            }
            prop_assert_eq!(cpu, bare);
        }
    }
}
