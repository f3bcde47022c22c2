//! The events that are kept for the guest: when each goes in, and how long the guest runs until it is tried again.

use super::event::{activity, next_kept};
use crate::vmm::percpu::kept;

/// Ticks of the TSC that the guest runs at first: long enough for some instructions, so that the shadow of STI or MOV SS
/// ends.
const PATIENCE: u32 = 1 << 11;

/// The most that it runs. Under another hypervisor an entry may take longer than the first patience, and the guest would
/// make no progress; each try doubles it, so that one suffices, and this is more than any entry takes.
const MOST_PATIENCE: u32 = 1 << 20;

/// The events of one CPU that could not be injected yet.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Kept {
    waiting: u8,
    tries: u32,
}

/// What is to be done with them now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delivery {
    /// The event that goes in with the next entry.
    pub inject: Option<u32>,
    /// The guest runs for so many ticks of the TSC, and then it is tried again.
    pub retry: Option<u32>,
}

impl Kept {
    /// Adds events of [`kept`].
    pub const fn add(&mut self, events: u8) {
        self.waiting |= events;
    }

    /// Returns true if an event is still to be injected.
    pub const fn waits(&self) -> bool {
        self.waiting != 0
    }

    /// Returns true if a machine check is.
    pub const fn has_machine_check(&self) -> bool {
        self.waiting & kept::MACHINE_CHECK != 0
    }

    /// Decides by the activity state, the interruptibility state and the event that the next entry injects anyway.
    pub const fn deliver(
        &mut self,
        activity: u32,
        interruptibility: u32,
        entry_information: u32,
    ) -> Delivery {
        // Entry with an event to inject would fail there, and the timer does not run: they wait until the CPU starts.
        if activity == activity::WAIT_FOR_SIPI {
            self.tries = 0;
            return Delivery { inject: None, retry: None };
        }
        let (inject, waiting) = next_kept(self.waiting, interruptibility, entry_information);
        self.waiting = waiting;
        if inject.is_some() {
            self.tries = 0;
        }
        if waiting == 0 {
            return Delivery { inject, retry: None };
        }
        let doubled = PATIENCE << self.tries;
        if doubled < MOST_PATIENCE {
            self.tries += 1;
        }
        Delivery { inject, retry: Some(doubled) }
    }

    /// Drops them, as INIT does: no event that is pending outlives that.
    pub const fn forget(&mut self) {
        *self = Self { waiting: 0, tries: 0 };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vmx::event;
    use crate::vmx::event::interruptibility::{NMI, STI};

    const ACTIVE: u32 = 0;

    fn with(events: u8) -> Kept {
        Kept { waiting: events, tries: 0 }
    }

    #[test]
    fn an_nmi_goes_in_when_nothing_blocks_it() {
        let mut kept = with(kept::NMI);
        let retry = Delivery { inject: None, retry: Some(PATIENCE) };
        assert_eq!(kept.deliver(ACTIVE, 0, 0x8000_0b0e), retry, "another event goes first");
        assert!(kept.waits());
        assert_eq!(kept.deliver(ACTIVE, 0, 0), Delivery { inject: Some(event::NMI), retry: None });
        assert!(!kept.waits());
    }

    #[test]
    fn a_machine_check_goes_in_first_and_the_nmi_is_tried_again() {
        let mut kept = with(kept::NMI);
        kept.add(kept::MACHINE_CHECK);
        assert!(kept.has_machine_check());
        let first = Delivery { inject: Some(event::MACHINE_CHECK), retry: Some(PATIENCE) };
        assert_eq!(kept.deliver(ACTIVE, STI, 0), first);
        assert!(kept.waits() && !kept.has_machine_check());
    }

    #[test]
    fn patience_doubles_with_each_try_up_to_a_bound() {
        let mut kept = with(kept::NMI);
        let mut last = PATIENCE / 2;
        for _ in 0..100 {
            let Some(ticks) = kept.deliver(ACTIVE, STI, 0).retry else { panic!("STI blocks it") };
            assert_eq!(ticks, (last * 2).min(MOST_PATIENCE));
            last = ticks;
        }
        assert_eq!(last, MOST_PATIENCE);
        assert_eq!(kept.deliver(ACTIVE, 0, 0).inject, Some(event::NMI));
        kept.add(kept::NMI);
        assert_eq!(kept.deliver(ACTIVE, NMI, 0).retry, Some(PATIENCE), "the next one begins anew");
    }

    #[test]
    fn init_drops_them() {
        let mut kept = with(kept::NMI | kept::MACHINE_CHECK);
        kept.deliver(ACTIVE, NMI, 0x8000_0b0e);
        kept.forget();
        assert_eq!(kept, Kept::default());
        kept.add(kept::NMI);
        let none = Delivery { inject: None, retry: None };
        assert_eq!(kept.deliver(activity::WAIT_FOR_SIPI, 0, 0), none);
        assert!(kept.waits(), "one that comes after it waits for the start");
    }
}
