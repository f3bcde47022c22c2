//! Exits at an instruction that is not the one in memory.
//!
//! The bytes that Vidar reads after an exit are not always the instruction that exited. Another CPU may have changed
//! the bytes or the page tables in the meantime, and this CPU may have executed from stale cached translations. So
//! Vidar flushes these translations and resumes the guest at the same RIP, and the CPU executes what is there now.
//!
//! This must end. If an instruction exits [`PATIENCE`] times in a row, Vidar does not know the instruction or cannot
//! read it, as in the memory of a device. The caller decides what happens to it then.

use vidar_abi::ExitKind;

/// The number of exits in a row at one instruction, which Vidar does not find in memory, after which Vidar gives up.
pub const PATIENCE: u32 = 16;

/// An exit at an instruction that was not found in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Site {
    /// The kind of the exit, as the CPU reports it.
    pub kind: ExitKind,
    /// RIP of the instruction.
    pub rip: u64,
    /// The number of exits of this kind that this CPU has emulated before, if the caller does not report them to
    /// [`Doubt::found`]; otherwise 0. An emulated exit in between thus begins a new count.
    pub answered: u64,
}

/// The count of exits in a row at one site. Each CPU has its own.
#[derive(Debug, Default)]
pub struct Doubt {
    last: Option<Site>,
    tries: u32,
}

impl Doubt {
    /// Counts an exit at `site`. Returns true if the guest is to execute the instruction once more, and false at the
    /// exit number [`PATIENCE`] in a row, after which the count begins anew.
    #[cold]
    pub fn tries_again(&mut self, site: Site) -> bool {
        self.tries = if self.last == Some(site) { self.tries + 1 } else { 1 };
        self.last = Some(site);
        let again = self.tries < PATIENCE;
        if !again {
            self.last = None;
        }
        again
    }

    /// Resets the count if it is that of the instruction at `rip`, which was found in memory. The count of another
    /// instruction stays: an interrupt handler may run, and be found, between two exits at the instruction that it
    /// interrupted.
    pub fn found(&mut self, rip: u64) {
        if self.last.is_some_and(|last| last.rip == rip) {
            self.last = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SITE: Site = Site { kind: ExitKind::Cpuid, rip: 0x1000, answered: 7 };

    #[test]
    fn retries_are_bounded_and_the_count_begins_anew() {
        let mut doubt = Doubt::default();
        for _ in 0..3 {
            for _ in 1..PATIENCE {
                assert!(doubt.tries_again(SITE));
            }
            assert!(!doubt.tries_again(SITE));
        }
    }

    #[test]
    fn only_consecutive_exits_at_the_same_site_count() {
        let mut doubt = Doubt::default();
        for count in 0..u64::from(3 * PATIENCE) {
            assert!(doubt.tries_again(Site { answered: count, ..SITE }));
            assert!(doubt.tries_again(Site { rip: count, ..SITE }));
            assert!(doubt.tries_again(Site { kind: ExitKind::Rdmsr, ..SITE }));
        }
        for _ in 0..3 * PATIENCE {
            assert!(doubt.tries_again(SITE));
            doubt.found(SITE.rip);
        }
        for _ in 1..PATIENCE {
            assert!(doubt.tries_again(SITE));
            doubt.found(0x2000);
        }
        assert!(!doubt.tries_again(SITE), "another instruction was found in between");
    }
}
