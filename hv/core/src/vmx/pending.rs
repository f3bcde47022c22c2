//! The events that are pending for the guest: decides when each is injected, and how long the guest runs before Vidar
//! tries again.

use super::event::{self, activity, interruptibility, next_pending};
use crate::vmm::percpu::pending;

/// The ticks of the TSC for which the guest runs before the second try. They suffice for some instructions, so that the
/// shadow of STI or MOV SS ends.
const PATIENCE: u32 = 1 << 11;

/// The most ticks of the TSC for which the guest runs before the next try. Under another hypervisor an entry alone may
/// take longer than [`PATIENCE`], and the guest would make no progress. So each try doubles the ticks, up to this
/// number, which exceeds the time of any entry.
const MOST_PATIENCE: u32 = 1 << 20;

/// The shadow of STI or of MOV SS.
const SHADOW: u32 = interruptibility::STI | interruptibility::MOV_SS;
/// The bit of `waiting` that says that an external interrupt waits. Those of [`pending`] are others.
const INTERRUPT: u8 = 1 << 7;
const _: () = assert!(INTERRUPT & (pending::NMI | pending::MACHINE_CHECK) == 0);

/// The events of one CPU that have not been injected yet.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct PendingEvents {
    waiting: u8,
    tries: u32,
    /// The vectors of the external interrupts that wait, 64 in each word.
    interrupts: [u64; 4],
}

/// What to do with the pending events before the next entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delivery {
    /// The VM-entry interruption information of the event to inject with the next entry, if one can be injected.
    pub inject: Option<u32>,
    /// The ticks of the TSC after which the guest must exit, so that Vidar tries again. `None` if no event waits, or if
    /// the CPU waits for a start-up IPI.
    pub retry: Option<u32>,
}

impl PendingEvents {
    /// Adds `events`, which are bits of [`pending`].
    pub const fn add(&mut self, events: u8) {
        self.waiting |= events;
    }

    /// Adds the external interrupt with this vector, which the APIC has delivered and does not send again.
    pub const fn add_interrupt(&mut self, vector: u8) {
        self.waiting |= INTERRUPT;
        self.interrupts[vector as usize / 64] |= 1 << (vector % 64);
    }

    /// Takes the external interrupt that comes first, as in the APIC: that with the highest vector.
    fn take_interrupt(&mut self) -> Option<u8> {
        let index = self.interrupts.iter().rposition(|word| *word != 0)?;
        let bit = 63 - self.interrupts[index].leading_zeros();
        self.interrupts[index] &= !(1 << bit);
        if self.interrupts == [0; 4] {
            self.waiting &= !INTERRUPT;
        }
        Some(64 * index as u8 + bit as u8)
    }

    /// Returns true if an event waits to be injected.
    pub const fn waits(&self) -> bool {
        self.waiting != 0
    }

    /// Returns true if a machine check waits to be injected.
    pub const fn has_machine_check(&self) -> bool {
        self.waiting & pending::MACHINE_CHECK != 0
    }

    /// Decides which event the next entry injects, and removes it from those that wait. The arguments are the guest's
    /// activity state, its RFLAGS.IF, its interruptibility state, and the VM-entry interruption information, which may
    /// already hold another event.
    pub fn deliver(
        &mut self,
        activity: u32,
        takes_interrupts: bool,
        interruptibility: u32,
        entry_information: u32,
    ) -> Delivery {
        // In this state VM entry with an event fails, and the preemption timer does not run. The events wait until the
        // CPU starts.
        if activity == activity::WAIT_FOR_SIPI {
            self.tries = 0;
            return Delivery { inject: None, retry: None };
        }
        let (mut inject, waiting) = next_pending(self.waiting, interruptibility, entry_information);
        self.waiting = waiting;
        let is_free = inject.is_none() && entry_information & event::VALID == 0;
        if is_free && takes_interrupts && interruptibility & SHADOW == 0 {
            inject = self.take_interrupt().map(event::of_external_interrupt);
        }
        if inject.is_some() {
            self.tries = 0;
        }
        if self.waiting == 0 {
            return Delivery { inject, retry: None };
        }
        let doubled = PATIENCE << self.tries;
        if doubled < MOST_PATIENCE {
            self.tries += 1;
        }
        Delivery { inject, retry: Some(doubled) }
    }

    /// Drops all events, as INIT drops pending events.
    pub const fn forget(&mut self) {
        *self = Self { waiting: 0, tries: 0, interrupts: [0; 4] };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vmx::event;
    use crate::vmx::event::interruptibility::{NMI, STI};

    const ACTIVE: u32 = 0;

    fn with(events: u8) -> PendingEvents {
        PendingEvents { waiting: events, ..PendingEvents::default() }
    }

    #[test]
    fn an_nmi_is_injected_when_nothing_blocks_it() {
        let mut events = with(pending::NMI);
        let retry = Delivery { inject: None, retry: Some(PATIENCE) };
        assert_eq!(
            events.deliver(ACTIVE, true, 0, 0x8000_0b0e),
            retry,
            "the next entry injects another event"
        );
        assert!(events.waits());
        assert_eq!(events.deliver(ACTIVE, true, 0, 0), Delivery { inject: Some(event::NMI), retry: None });
        assert!(!events.waits());
    }

    #[test]
    fn a_machine_check_is_injected_first_and_the_nmi_is_tried_again() {
        let mut events = with(pending::NMI);
        events.add(pending::MACHINE_CHECK);
        assert!(events.has_machine_check());
        let first = Delivery { inject: Some(event::MACHINE_CHECK), retry: Some(PATIENCE) };
        assert_eq!(events.deliver(ACTIVE, true, STI, 0), first);
        assert!(events.waits() && !events.has_machine_check());
    }

    #[test]
    fn patience_doubles_with_each_try_up_to_a_bound() {
        let mut events = with(pending::NMI);
        let mut last = PATIENCE / 2;
        for _ in 0..100 {
            let Some(ticks) = events.deliver(ACTIVE, true, STI, 0).retry else { panic!("STI blocks it") };
            assert_eq!(ticks, (last * 2).min(MOST_PATIENCE));
            last = ticks;
        }
        assert_eq!(last, MOST_PATIENCE);
        assert_eq!(events.deliver(ACTIVE, true, 0, 0).inject, Some(event::NMI));
        events.add(pending::NMI);
        assert_eq!(
            events.deliver(ACTIVE, true, NMI, 0).retry,
            Some(PATIENCE),
            "the ticks begin anew with the next event"
        );
    }

    #[test]
    fn an_interrupt_waits_until_the_guest_takes_interrupts() {
        let mut events = with(pending::NMI);
        [0x20, 0xec, 0x81].into_iter().for_each(|vector| events.add_interrupt(vector));
        assert_eq!(events.deliver(ACTIVE, true, 0, 0).inject, Some(event::NMI));
        for (takes_interrupts, blocking, injected) in [(false, 0, 0), (true, STI, 0), (true, 0, event::NMI)] {
            let delivery = events.deliver(ACTIVE, takes_interrupts, blocking, injected);
            assert!(delivery.inject.is_none() && delivery.retry.is_some());
        }
        for (vector, is_last) in [(0xec, false), (0x81, false), (0x20, true)] {
            let delivery = events.deliver(activity::HLT, true, NMI, 0);
            assert_eq!(
                delivery.inject,
                Some(0x8000_0000 | vector),
                "the highest comes first, as in the APIC"
            );
            assert_eq!((delivery.retry.is_none(), events.waits()), (is_last, !is_last));
        }
    }

    #[test]
    fn init_drops_kept_events() {
        let mut events = with(pending::NMI | pending::MACHINE_CHECK);
        events.add_interrupt(0x30);
        events.deliver(ACTIVE, true, NMI, 0x8000_0b0e);
        events.forget();
        assert_eq!(events, PendingEvents::default());
        events.add(pending::NMI);
        let none = Delivery { inject: None, retry: None };
        assert_eq!(events.deliver(activity::WAIT_FOR_SIPI, true, 0, 0), none);
        assert!(events.waits(), "an event after the INIT waits until the CPU starts");
    }
}
