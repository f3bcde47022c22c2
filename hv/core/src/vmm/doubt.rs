//! Exits at an instruction that is not the one in memory.
//!
//! What Vidar reads after an exit is not always what exited: another CPU may have changed the bytes, or the page tables, in
//! between, and this CPU may have executed what it remembered of either. So what the CPU remembers is dropped, the guest goes
//! on at the same RIP, and the CPU decides what is there.
//!
//! That always ends. An instruction that exits [`PATIENCE`] times in a row is one that Vidar does not know or cannot read, as in
//! the memory of a device. What becomes of it then is for the caller to say.

use vidar_abi::ExitKind;

/// How often in a row an instruction may exit and not be found.
pub const PATIENCE: u32 = 16;

/// An exit at an instruction that was not found in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Site {
    /// What the CPU says of the instruction.
    pub kind: ExitKind,
    /// RIP.
    pub rip: u64,
    /// Exits of the kind that this CPU has answered before it, where nobody calls [`Doubt::found`] for them.
    pub answered: u64,
}

/// What a CPU remembers of such exits.
#[derive(Debug, Default)]
pub struct Doubt {
    last: Option<Site>,
    tries: u32,
}

impl Doubt {
    /// Returns true if the guest is to execute the instruction at `site` once more, and false if that has been enough.
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

    /// The instruction at `rip` was found: what it has exited before counts no more. Others go on to count, as a handler may store
    /// between two tries of what it has interrupted.
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
    fn patience_ends_and_begins_anew() {
        let mut doubt = Doubt::default();
        for _ in 0..3 {
            for _ in 1..PATIENCE {
                assert!(doubt.tries_again(SITE));
            }
            assert!(!doubt.tries_again(SITE));
        }
    }

    #[test]
    fn only_the_very_same_exits_are_counted_together() {
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
