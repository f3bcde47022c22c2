//! The state of a CPU between INIT and start-up IPI, if Vidar starts CPUs and not the local APICs by themselves. Intel
//! SDM Vol. 3A, 9.4.4 "MP Initialization Example".

use core::sync::atomic::{AtomicU32, Ordering};

/// The CPU runs. Values below this are vectors at which the CPU is about to start.
const RUNNING: u32 = 0x100;
/// The CPU waits for a start-up IPI.
const WAITING: u32 = 0x200;

/// The state of one CPU: it runs, waits for a start-up IPI, or is about to start at a vector. The CPUs that send
/// messages change it, and so does the CPU itself.
#[derive(Debug)]
pub struct StartupState(AtomicU32);

impl StartupState {
    /// Returns the state of a CPU that runs.
    pub const fn running() -> Self {
        Self(AtomicU32::new(RUNNING))
    }

    /// Marks the CPU as waiting, since another CPU sends it an INIT. Returns true if Vidar must send the INIT, that is,
    /// if the CPU was not waiting already.
    pub fn init(&self) -> bool {
        self.0.swap(WAITING, Ordering::SeqCst) != WAITING
    }

    /// Marks the CPU as waiting if it runs, since an INIT has reached it. A CPU that is about to start stays so: the
    /// start-up IPI came after the INIT.
    pub fn taken_by_init(&self) {
        let _ = self.0.compare_exchange(RUNNING, WAITING, Ordering::SeqCst, Ordering::SeqCst);
    }

    /// Marks a CPU that waits as about to start at `vector`, since another CPU sends it a start-up IPI. Returns true if
    /// Vidar must send the CPU a start-up IPI, that is, if the CPU does not run yet. A CPU that runs ignores start-up
    /// IPIs. If several arrive before the CPU runs, the first decides, since a bare CPU would start with it.
    pub fn startup(&self, vector: u8) -> bool {
        match self.0.compare_exchange(WAITING, vector.into(), Ordering::SeqCst, Ordering::SeqCst) {
            Ok(_) => true,
            Err(state) => state < RUNNING,
        }
    }

    /// Marks a CPU that is about to start as running, and returns the vector at which it starts. The CPU calls it when
    /// it has reached Vidar. Returns `None` if another INIT was sent after the start-up IPI, so that the CPU waits
    /// again.
    pub fn take(&self) -> Option<u8> {
        let state = self.0.load(Ordering::SeqCst);
        let vector = u8::try_from(state).ok()?;
        self.0.compare_exchange(state, RUNNING, Ordering::SeqCst, Ordering::SeqCst).ok().map(|_| vector)
    }

    /// Returns true if the CPU waits for a start-up IPI, so that a message other than that one does not reach it.
    pub fn is_waiting(&self) -> bool {
        self.0.load(Ordering::SeqCst) == WAITING
    }

    /// Returns true if a start-up IPI was sent and the CPU has not taken it yet.
    pub fn is_starting(&self) -> bool {
        self.0.load(Ordering::SeqCst) < RUNNING
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
        /// An INIT that reaches the CPU without a call of `init`.
        Wire,
        Startup(u8),
        /// The CPU reaches Vidar and calls `take`.
        Take,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            2 => Just(Step::Init),
            1 => Just(Step::Wire),
            3 => any::<u8>().prop_map(Step::Startup),
            3 => Just(Step::Take),
        ]
    }

    proptest! {
        /// A CPU that takes its messages late ends in the same state as a bare CPU, which takes them at once.
        #[test]
        fn a_cpu_ends_in_the_state_of_a_bare_cpu(steps in proptest::collection::vec(step(), 0..40)) {
            let startup = StartupState::running();
            let mut bare = Bare::Running { since: None };
            // The CPU itself, which waits until it takes a start-up IPI.
            let mut cpu = Bare::Running { since: None };
            for step in steps {
                match step {
                    Step::Init => {
                        let told = startup.init();
                        prop_assert_eq!(told, bare != Bare::Waiting);
                        bare = Bare::Waiting;
                        cpu = Bare::Waiting;
                    }
                    // The INIT takes a CPU that runs. A CPU that is still to start has taken its INIT already.
                    Step::Wire => {
                        startup.taken_by_init();
                        if cpu != Bare::Waiting {
                            (bare, cpu) = (Bare::Waiting, Bare::Waiting);
                        }
                    }
                    Step::Startup(vector) => {
                        let woken = startup.startup(vector);
                        if bare == Bare::Waiting {
                            bare = Bare::Running { since: Some(vector) };
                            prop_assert!(woken);
                        } else {
                            // The CPU is woken up again only until it has taken a start-up IPI.
                            prop_assert_eq!(woken, cpu == Bare::Waiting);
                        }
                    }
                    Step::Take => {
                        let starting = startup.is_starting();
                        match startup.take() {
                            Some(vector) => {
                                prop_assert!(starting && cpu == Bare::Waiting);
                                cpu = Bare::Running { since: Some(vector) };
                                prop_assert_eq!(cpu, bare);
                            }
                            None => prop_assert!(!starting && cpu == bare),
                        }
                    }
                }
            }
            if let Some(vector) = startup.take() {
                cpu = Bare::Running { since: Some(vector) };
            }
            prop_assert_eq!(cpu, bare);
        }
    }
}
