//! Wakes the further CPUs: the messages that the boot CPU sends them, and its pauses. Intel SDM Vol. 3A, 9.4.4 "MP
//! Initialization Example".

use crate::x86::icr::Message;

/// Ticks of the TSC between INIT and the first start-up IPI. Modern CPUs need no pause.
const PAUSE: u64 = 1_000_000;

/// Ticks that the CPUs have to answer the first and the second start-up IPI. At 5 GHz the second one comes 10 ms after
/// INIT, as old CPUs require.
const PATIENCE: [u64; 2] = [50_000_000, 250_000_000];

/// The least number of times that the boot CPU looks for the answers, which takes it some hundredths of a second. A
/// virtual CPU may not run at all while those ticks pass, but where the boot CPU runs, so do the others.
const LOOKS: u32 = 1_000_000;

/// Wakes the CPUs at `vector`. `send` sends a message to each CPU that has not answered, and `wait` waits for a number
/// of ticks of the TSC and a number of looks for the answers, or until all CPUs have answered.
///
/// Only start-up IPIs are sent again. A CPU may answer at the very moment of a message: it ignores another start-up
/// IPI, but an INIT would stop it after its answer.
pub fn wake(vector: u8, mut send: impl FnMut(Message), mut wait: impl FnMut(u64, u32)) {
    send(Message::Init);
    wait(PAUSE, 0);
    for patience in PATIENCE {
        send(Message::Startup(vector));
        wait(patience, LOOKS);
    }
}

#[cfg(test)]
mod tests {
    use core::cell::{Cell, RefCell};

    use proptest::prelude::*;

    use super::*;

    /// What a bare CPU does at a time.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum Doing {
        Waits { since: u64 },
        Runs { answers: u64 },
    }

    /// A bare CPU.
    #[derive(Debug)]
    struct Bare {
        /// Ticks after INIT in which it misses start-up IPIs.
        deaf: u64,
        /// Ticks between its start and its answer.
        slow: u64,
        doing: Doing,
        /// True if it was stopped after its answer.
        lost: bool,
    }

    impl Bare {
        fn has_answered(&self, now: u64) -> bool {
            self.lost || matches!(self.doing, Doing::Runs { answers } if answers <= now)
        }

        fn takes(&mut self, message: Message, now: u64) {
            match (message, self.doing) {
                (Message::Init, _) => {
                    self.lost = self.has_answered(now);
                    self.doing = Doing::Waits { since: now };
                }
                (Message::Startup(0x9e), Doing::Waits { since }) if now - since >= self.deaf => {
                    self.doing = Doing::Runs { answers: now + self.slow };
                }
                _ => {}
            }
        }
    }

    fn bare() -> impl Strategy<Value = Bare> {
        let (deaf, slow) = (0..=50_000_000_u64, prop_oneof![0..240_000_000_u64, 48_000_000..52_000_000_u64]);
        (deaf, slow).prop_map(|(deaf, slow)| Bare {
            deaf,
            slow,
            doing: Doing::Waits { since: 0 },
            lost: false,
        })
    }

    /// The least number of ticks that one look takes.
    const LOOK: u64 = 50;

    proptest! {
        /// Every CPU has answered in the end, whenever it answers and however long a message takes. Where a hypervisor
        /// takes a number of ticks of each pause from all CPUs, this holds for CPUs that answer within the looks.
        #[test]
        fn no_cpu_is_given_up_or_stopped_after_its_answer(
            mut cpus in proptest::collection::vec(bare(), 1..4),
            transit in 0..1_000_000_u64,
            stolen in prop_oneof![Just(0), 1..500_000_000_u64],
        ) {
            if stolen > 0 {
                cpus.iter_mut().for_each(|cpu| cpu.slow %= LOOK * u64::from(LOOKS));
            }
            let (cpus, clock) = (RefCell::new(cpus), Cell::new(0));
            let send = |message| {
                for cpu in &mut *cpus.borrow_mut() {
                    if !cpu.has_answered(clock.get()) {
                        clock.set(clock.get() + transit);
                        cpu.takes(message, clock.get());
                    }
                }
            };
            let wait = |ticks: u64, looks| {
                let end = clock.get() + ticks.saturating_sub(stolen).max(LOOK * u64::from(looks));
                let last = cpus.borrow().iter().map(|cpu| match cpu.doing {
                    Doing::Waits { .. } => end,
                    Doing::Runs { answers } => answers,
                }).max();
                clock.set(last.map_or(end, |last| last.clamp(clock.get(), end)));
            };
            wake(0x9e, send, wait);
            for cpu in &*cpus.borrow() {
                prop_assert!(cpu.has_answered(clock.get()) && !cpu.lost, "{cpu:?}");
            }
        }
    }
}
