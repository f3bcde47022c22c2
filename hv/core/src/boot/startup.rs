//! Decides who starts CPUs for the guest, from the user's choice and from what the boot order has found.

use crate::mem::addr::Hpa;
use crate::vmm::machine::Startup;

/// Who should start CPUs for the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preference {
    /// Let the local APICs start CPUs if the extension supports that, and emulate it otherwise.
    Auto,
    /// Let the local APICs start CPUs at Vidar's stubs: [`landing`](super::landing).
    Landing {
        /// The memory to which the guest's RAM below 640 KiB is moved.
        low_memory: Hpa,
    },
    /// As [`Preference::Auto`], but let no CPU start that is not under Vidar's control, whatever the guest's kernel
    /// sends.
    Closed,
    /// Emulate the start of CPUs.
    Emulated,
}

/// What the decision depends on. `W` is the [`Vcpu::WaitForSipi`](crate::vmm::vcpu::Vcpu::WaitForSipi) of the
/// extension.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conditions<W> {
    /// The vector of the trampoline's page; `None` if no page is free for it.
    pub trampoline: Option<u8>,
    /// Given if a CPU can wait for a start-up IPI inside the guest.
    pub wait_for_sipi: Option<W>,
    /// True if the guest could start a further CPU, now or after it has been added.
    pub has_further: bool,
    /// True if a CPU may be added while the guest runs. It is not under Vidar's control.
    pub later: bool,
    /// True if there may be a CPU that the guest could start and that is not under Vidar's control: it would run beside
    /// Vidar.
    pub uncontrolled: bool,
}

/// Returns who starts CPUs. Landing needs a trampoline; without one, Vidar watches the messages between CPUs instead.
pub fn choose<W>(preference: Preference, conditions: Conditions<W>) -> Startup<W> {
    let Conditions { trampoline, wait_for_sipi, has_further, later, uncontrolled } = conditions;
    match (preference, wait_for_sipi) {
        (Preference::Landing { .. }, _) if trampoline.is_some() => Startup::Landing,
        _ if uncontrolled => Startup::Emulated { room: trampoline },
        (Preference::Closed, _) if later => Startup::Emulated { room: trampoline },
        (Preference::Auto | Preference::Closed, Some(wait)) => Startup::Hardware(wait),
        _ if has_further => Startup::Emulated { room: trampoline },
        _ => Startup::Alone,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine with further CPUs and a trampoline, whose CPUs cannot wait for a start-up IPI inside the guest.
    const AMD: Conditions<()> = Conditions {
        trampoline: Some(0x9e),
        wait_for_sipi: None,
        has_further: true,
        later: false,
        uncontrolled: false,
    };
    const INTEL: Conditions<()> = Conditions { wait_for_sipi: Some(()), ..AMD };
    const ALONE: Conditions<()> = Conditions { trampoline: None, has_further: false, ..AMD };
    const LANDING: Preference = Preference::Landing { low_memory: Hpa(0x70_0000) };
    const EMULATED: Startup<()> = Startup::Emulated { room: Some(0x9e) };

    #[test]
    fn landing_is_used_with_one_cpu_too() {
        assert_eq!(choose(LANDING, AMD), Startup::Landing);
        let alone = Conditions { trampoline: Some(0x9e), ..ALONE };
        for conditions in [alone, Conditions { uncontrolled: true, ..alone }] {
            assert_eq!(choose(LANDING, conditions), Startup::Landing);
        }
    }

    #[test]
    fn without_a_trampoline_landing_becomes_emulation() {
        for conditions in [Conditions { trampoline: None, ..AMD }, Conditions { uncontrolled: true, ..ALONE }]
        {
            assert_eq!(choose(LANDING, conditions), Startup::Emulated { room: conditions.trampoline });
        }
        assert_eq!(choose(LANDING, ALONE), Startup::Alone);
    }

    #[test]
    fn auto_emulates_only_if_hardware_cannot_or_a_cpu_is_not_controlled() {
        for (preference, conditions, expected) in [
            (Preference::Auto, AMD, EMULATED),
            (Preference::Auto, ALONE, Startup::Alone),
            (Preference::Auto, INTEL, Startup::Hardware(())),
            (Preference::Auto, Conditions { has_further: false, ..INTEL }, Startup::Hardware(())),
            (Preference::Auto, Conditions { uncontrolled: true, ..INTEL }, EMULATED),
            (Preference::Emulated, AMD, EMULATED),
            (Preference::Emulated, INTEL, EMULATED),
            (Preference::Emulated, Conditions { has_further: false, ..INTEL }, Startup::Alone),
        ] {
            assert_eq!(choose(preference, conditions), expected, "{preference:?} {conditions:?}");
        }
    }

    #[test]
    fn closed_emulates_wherever_hardware_would_start_a_cpu_beside_vidar() {
        for (conditions, auto, closed) in [
            (INTEL, Startup::Hardware(()), Startup::Hardware(())),
            (Conditions { later: true, ..INTEL }, Startup::Hardware(()), EMULATED),
            (Conditions { later: true, ..AMD }, EMULATED, EMULATED),
            (ALONE, Startup::Alone, Startup::Alone),
        ] {
            assert_eq!(choose(Preference::Auto, conditions), auto, "{conditions:?}");
            assert_eq!(choose(Preference::Closed, conditions), closed, "{conditions:?}");
        }
    }
}
