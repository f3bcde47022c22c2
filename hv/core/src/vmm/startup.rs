//! Whether a CPU waits for a start-up IPI, where its local APIC is not let to decide that by itself: what INIT and
//! start-up IPIs come to. Intel SDM Vol. 3A, 9.4.4 "MP Initialization Example".

use core::sync::atomic::{AtomicU32, Ordering};

/// Above all vectors.
const RUNNING: u32 = 0x100;
const WAITING: u32 = 0x200;

/// The state of one CPU: running, waiting, or about to start at a vector. Senders and the CPU itself change it.
#[derive(Debug)]
pub struct Startup(AtomicU32);

impl Startup {
    /// A CPU that runs.
    pub const fn running() -> Self {
        Self(AtomicU32::new(RUNNING))
    }

    /// An INIT for the CPU: from now on it waits. Whether it has to be told: it is running, or about to.
    pub fn init(&self) -> bool {
        self.0.swap(WAITING, Ordering::SeqCst) != WAITING
    }

    /// An INIT has reached the CPU: it waits, unless it is known already that it does.
    pub fn taken_by_init(&self) {
        let _ = self.0.compare_exchange(RUNNING, WAITING, Ordering::SeqCst, Ordering::SeqCst);
    }

    /// A start-up IPI for the CPU. Whether it is to be woken up: a CPU that runs takes no notice. Of several before it is
    /// up the first counts, as it would start there at once.
    pub fn startup(&self, vector: u8) -> bool {
        match self.0.compare_exchange(WAITING, vector.into(), Ordering::SeqCst, Ordering::SeqCst) {
            Ok(_) => true,
            Err(state) => state < RUNNING,
        }
    }

    /// The CPU is up: where it is to start. `None` where another INIT has overtaken the start-up IPI.
    pub fn take(&self) -> Option<u8> {
        let state = self.0.load(Ordering::SeqCst);
        let vector = u8::try_from(state).ok()?;
        self.0.compare_exchange(state, RUNNING, Ordering::SeqCst, Ordering::SeqCst).ok().map(|_| vector)
    }

    /// Returns true if a start-up IPI has come and the CPU has not taken it yet.
    pub fn is_starting(&self) -> bool {
        self.0.load(Ordering::SeqCst) < RUNNING
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What a bare CPU does: INIT always takes it, a start-up IPI only when it waits.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum Bare {
        Running { since: Option<u8> },
        Waiting,
    }

    #[derive(Debug, Clone, Copy)]
    enum Step {
        Init,
        /// An INIT that nobody has announced.
        Wire,
        Startup(u8),
        /// The CPU gets as far as to ask.
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
        /// The CPU that is behind in time ends where a bare CPU is at once, whenever it asks.
        #[test]
        fn ends_where_a_bare_cpu_ends(steps in proptest::collection::vec(step(), 0..40)) {
            let startup = Startup::running();
            let mut bare = Bare::Running { since: None };
            // The CPU itself: where it runs, or `None` while it waits to be woken up.
            let mut cpu = Bare::Running { since: None };
            for step in steps {
                match step {
                    Step::Init => {
                        let told = startup.init();
                        prop_assert_eq!(told, bare != Bare::Waiting);
                        bare = Bare::Waiting;
                        cpu = Bare::Waiting;
                    }
                    // It takes a CPU that runs; one that is not up yet has taken its INIT already.
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
                            // Woken up again only as long as it is not up.
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
