//! How the machine ends when the guest or Vidar itself cannot go on: after a crash report, a panic and a machine check it is
//! the same.

use core::sync::atomic::{AtomicU8, Ordering};

/// What to do when there is nothing more to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnCrash {
    /// Stop, so that the report can be read.
    Halt,
    /// Reset the machine, as it would without Vidar.
    Reset,
}

impl OnCrash {
    /// What is done where the user has `said` something or not. A reset before the guest runs would end at the same place
    /// again, and nobody could read why.
    pub const fn chosen(said: Option<Self>, guest_runs: bool) -> Self {
        match said {
            Some(said) => said,
            None if guest_runs => Self::Reset,
            None => Self::Halt,
        }
    }
}

/// What the user has said: 0 is nothing.
static SAID: AtomicU8 = AtomicU8::new(0);

/// Notes what the user has said.
pub fn say(said: Option<OnCrash>) {
    let number = match said {
        None => 0,
        Some(OnCrash::Halt) => 1,
        Some(OnCrash::Reset) => 2,
    };
    SAID.store(number, Ordering::Relaxed);
}

/// What the user has said.
pub fn said() -> Option<OnCrash> {
    match SAID.load(Ordering::Relaxed) {
        1 => Some(OnCrash::Halt),
        2 => Some(OnCrash::Reset),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_holds_always() {
        for said in [OnCrash::Halt, OnCrash::Reset] {
            for guest_runs in [false, true] {
                assert_eq!(OnCrash::chosen(Some(said), guest_runs), said);
            }
        }
        assert_eq!(OnCrash::chosen(None, true), OnCrash::Reset);
        assert_eq!(OnCrash::chosen(None, false), OnCrash::Halt);
    }

    #[test]
    fn what_is_said_is_noted() {
        for what in [Some(OnCrash::Halt), Some(OnCrash::Reset), None] {
            say(what);
            assert_eq!(said(), what);
        }
    }
}
