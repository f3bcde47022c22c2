//! Who is to start CPUs for the guest: the decision, by what the boot has found.

use crate::vmm::machine::Startup;

/// What is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// The local APICs, where the extension lets them; or else Vidar.
    Auto,
    /// The local APICs: every start-up IPI leads to Vidar.
    Landing,
    /// Vidar.
    Emulated,
}

/// What the boot has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// The vector of the trampoline's page; `None` where there is none.
    pub trampoline: Option<u8>,
    /// A CPU can wait for a start-up IPI in the guest.
    pub waits_for_sipi: bool,
    /// The guest could start a further CPU, now or once it has been added.
    pub has_further: bool,
    /// There may be a CPU that the guest could start and that is not Vidar's: it would run beside Vidar.
    pub guarded: bool,
}

/// Decides. Every start-up IPI can only lead to Vidar if there is something for it to lead to; where there is not, Vidar looks
/// at the messages instead.
pub const fn choose(wish: Wish, found: Found) -> Startup {
    let by_vidar = !matches!(wish, Wish::Auto) || !found.waits_for_sipi;
    match found.trampoline {
        Some(_) if matches!(wish, Wish::Landing) => Startup::Landing,
        vector if found.has_further && by_vidar || found.guarded => {
            Startup::Emulated { trampoline: if let Some(vector) = vector { vector } else { 0 } }
        }
        _ => Startup::Hardware,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine with further CPUs and a trampoline, of a CPU without the state in which it waits.
    const AMD: Found =
        Found { trampoline: Some(0x9e), waits_for_sipi: false, has_further: true, guarded: false };
    const INTEL: Found = Found { waits_for_sipi: true, ..AMD };
    const ALONE: Found = Found { trampoline: None, has_further: false, ..AMD };
    const EMULATED: Startup = Startup::Emulated { trampoline: 0x9e };
    /// No CPU is ever started: there is nothing that could do it.
    const WATCHED: Startup = Startup::Emulated { trampoline: 0 };

    #[test]
    fn start_up_ipis_lead_to_vidar_on_one_cpu_as_well() {
        assert_eq!(choose(Wish::Landing, AMD), Startup::Landing);
        let alone = Found { trampoline: Some(0x9e), ..ALONE };
        for found in [alone, Found { guarded: true, ..alone }] {
            assert_eq!(choose(Wish::Landing, found), Startup::Landing);
        }
    }

    #[test]
    fn without_a_trampoline_messages_are_looked_at() {
        for found in [Found { trampoline: None, ..AMD }, Found { guarded: true, ..ALONE }] {
            assert_eq!(choose(Wish::Landing, found), WATCHED);
        }
        assert_eq!(choose(Wish::Landing, ALONE), Startup::Hardware);
    }

    #[test]
    fn vidar_starts_cpus_where_they_cannot_wait_and_where_one_is_not_its_own() {
        for (wish, found, expected) in [
            (Wish::Auto, AMD, EMULATED),
            (Wish::Auto, ALONE, Startup::Hardware),
            (Wish::Auto, INTEL, Startup::Hardware),
            (Wish::Auto, Found { guarded: true, ..INTEL }, EMULATED),
            (Wish::Emulated, AMD, EMULATED),
            (Wish::Emulated, INTEL, EMULATED),
            (Wish::Emulated, Found { has_further: false, ..INTEL }, Startup::Hardware),
        ] {
            assert_eq!(choose(wish, found), expected, "{wish:?} {found:?}");
        }
    }
}
