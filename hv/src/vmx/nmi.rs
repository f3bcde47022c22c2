//! The NMI that is kept for the guest: when it goes in, and how long the guest runs until it is tried again.

use super::event::{activity, nmi_allowed};

/// Ticks of the TSC that the guest runs at first: long enough for some instructions, so that the shadow of STI or MOV SS
/// ends.
const PATIENCE: u32 = 1 << 11;

/// The most that it runs. Under another hypervisor an entry may take longer than the first patience, and the guest would
/// make no progress; each try doubles it, so that one suffices, and this is more than any entry takes.
const MOST_PATIENCE: u32 = 1 << 20;

/// The NMI of one CPU, if it could not be injected yet.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct KeptNmi {
    waits: bool,
    tries: u32,
}

/// What is to be done with it now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// It goes in with the next entry.
    Inject,
    /// It waits until the CPU starts.
    AtStartup,
    /// The guest runs for so many ticks of the TSC, and then it is tried again.
    Retry(u32),
}

impl KeptNmi {
    /// Whether an NMI is still to be injected.
    pub const fn waits(&self) -> bool {
        self.waits
    }

    /// An NMI is to go in: decides by the activity state, the interruptibility state and the event that the next entry
    /// injects anyway.
    pub const fn deliver(
        &mut self,
        activity: u32,
        interruptibility: u32,
        entry_information: u32,
    ) -> Delivery {
        // Entry with an event to inject would fail there, and the timer does not run.
        if activity == activity::WAIT_FOR_SIPI {
            *self = Self { waits: true, tries: 0 };
            return Delivery::AtStartup;
        }
        if nmi_allowed(interruptibility, entry_information) {
            self.forget();
            return Delivery::Inject;
        }
        let doubled = PATIENCE << self.tries;
        *self =
            Self { waits: true, tries: if doubled < MOST_PATIENCE { self.tries + 1 } else { self.tries } };
        Delivery::Retry(doubled)
    }

    /// Drops it, as INIT does: no event that is pending outlives that.
    pub const fn forget(&mut self) {
        *self = Self { waits: false, tries: 0 };
    }
}

#[cfg(test)]
mod tests {
    use super::super::event::interruptibility::{NMI, STI};
    use super::*;

    const ACTIVE: u32 = 0;

    #[test]
    fn it_goes_in_when_nothing_blocks_it() {
        let mut kept = KeptNmi::default();
        assert_eq!(kept.deliver(ACTIVE, 0, 0), Delivery::Inject);
        assert!(!kept.waits());
        assert_eq!(
            kept.deliver(ACTIVE, 0, 0x8000_0b0e),
            Delivery::Retry(PATIENCE),
            "another event goes first"
        );
        assert!(kept.waits());
        assert_eq!(kept.deliver(ACTIVE, 0, 0), Delivery::Inject);
        assert!(!kept.waits());
    }

    #[test]
    fn patience_doubles_with_each_try_up_to_a_bound() {
        let mut kept = KeptNmi::default();
        let mut last = PATIENCE / 2;
        for _ in 0..100 {
            let Delivery::Retry(ticks) = kept.deliver(ACTIVE, STI, 0) else { panic!("STI blocks it") };
            assert_eq!(ticks, (last * 2).min(MOST_PATIENCE));
            last = ticks;
        }
        assert_eq!(last, MOST_PATIENCE);
        assert_eq!(kept.deliver(ACTIVE, 0, 0), Delivery::Inject);
        assert_eq!(kept.deliver(ACTIVE, NMI, 0), Delivery::Retry(PATIENCE), "the next one begins anew");
    }

    #[test]
    fn init_drops_it() {
        let mut kept = KeptNmi::default();
        kept.deliver(ACTIVE, NMI, 0);
        kept.forget();
        assert_eq!(kept, KeptNmi::default());
        assert_eq!(kept.deliver(activity::WAIT_FOR_SIPI, 0, 0), Delivery::AtStartup);
        assert!(kept.waits(), "one that comes after it waits for the start");
    }
}
