//! What Vidar does with the machine when the guest or Vidar itself cannot go on: after a crash report, a panic or a
//! machine check.

use core::sync::atomic::{AtomicU8, Ordering};

/// What Vidar does after its last report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnCrash {
    /// Halt, so that the report can be read.
    Halt,
    /// Reset the machine, as it would happen without Vidar.
    Reset,
}

impl OnCrash {
    /// Returns what to do: the user's `choice` if there is one, otherwise a reset once the guest runs, and a halt
    /// before. A reset during boot would lead to the same failure again, and nobody could read the report.
    pub const fn or_default(choice: Option<Self>, guest_runs: bool) -> Self {
        match choice {
            Some(choice) => choice,
            None if guest_runs => Self::Reset,
            None => Self::Halt,
        }
    }
}

/// The user's choice as a number; 0 for none.
static CHOICE: AtomicU8 = AtomicU8::new(0);

/// Stores the user's choice of `on-crash=`, or `None` without one.
pub fn set_choice(choice: Option<OnCrash>) {
    let number = match choice {
        None => 0,
        Some(OnCrash::Halt) => 1,
        Some(OnCrash::Reset) => 2,
    };
    CHOICE.store(number, Ordering::Relaxed);
}

/// Returns the user's choice, or `None` without one.
pub fn choice() -> Option<OnCrash> {
    match CHOICE.load(Ordering::Relaxed) {
        1 => Some(OnCrash::Halt),
        2 => Some(OnCrash::Reset),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choice_of_the_user_takes_precedence() {
        for choice in [OnCrash::Halt, OnCrash::Reset] {
            for guest_runs in [false, true] {
                assert_eq!(OnCrash::or_default(Some(choice), guest_runs), choice);
            }
        }
        assert_eq!(OnCrash::or_default(None, true), OnCrash::Reset);
        assert_eq!(OnCrash::or_default(None, false), OnCrash::Halt);
    }

    #[test]
    fn choice_is_stored() {
        for expected in [Some(OnCrash::Halt), Some(OnCrash::Reset), None] {
            set_choice(expected);
            assert_eq!(choice(), expected);
        }
    }
}
