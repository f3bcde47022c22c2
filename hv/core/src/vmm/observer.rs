//! The seam to what watches the guest: the loop of [`run`](super::run) tells an observer of each entry and each exit.
//!
//! Handlers answer exits for the guest's sake, and an observer watches for the user's sake. Without an observer the
//! loop is compiled for [`Unobserved`], so it has no instruction for this seam.

use super::exit::Exit;
use super::outcome::{Outcome, Stop};
use super::vcpu::Vcpu;

/// What the boot options want observed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Wanted {
    /// The rules for entering the guest are asked before each entry.
    pub check: bool,
    /// gdb can stop the guest.
    pub debugger: bool,
    /// Each exit is recorded in the trace.
    pub trace: bool,
}

impl Wanted {
    /// Returns true if anything is to be observed.
    pub fn any(&self) -> bool {
        *self != Self::default()
    }
}

/// Watches the guest on one CPU. Every method does nothing unless an observer overrides it.
pub trait Observer<V: Vcpu> {
    /// Is told that the guest is about to be entered. Its pending events have not been injected yet.
    fn before_entry(&mut self, vcpu: &mut V) {
        let _ = vcpu;
    }

    /// Is told of an exit before a handler answers it. If the exit is the observer's own, it answers it by returning
    /// how the guest goes on.
    fn after_exit(&mut self, vcpu: &mut V, exit: &Exit) -> Option<Outcome> {
        let _ = (vcpu, exit);
        None
    }

    /// Returns true if such an exit is answered in a function apart from the loop. That takes some instructions more,
    /// and it leaves the compiler more registers for the exits that the loop itself answers.
    #[inline(always)] // the compiler is to know it for each exit
    fn is_answered_apart(exit: &Exit) -> bool {
        let _ = exit;
        false
    }

    /// Is told that the guest cannot go on, for the reason `stop`. If the observer has changed that, it returns how the
    /// guest goes on.
    fn before_stop(&mut self, vcpu: &mut V, stop: Stop, exit: &Exit) -> Option<Outcome> {
        let _ = (vcpu, stop, exit);
        None
    }
}

/// The observer of a guest that nobody watches.
pub struct Unobserved;

impl<V: Vcpu> Observer<V> for Unobserved {}
