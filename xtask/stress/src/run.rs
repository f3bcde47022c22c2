//! The end of the run, which all threads wait for.

use std::sync::atomic::{AtomicBool, Ordering};

/// A run, which the main thread ends. All other threads check for its end between two steps of their work.
#[derive(Default)]
pub struct Run {
    over: AtomicBool,
}

impl Run {
    /// Returns true if the run has ended.
    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// Ends the run.
    pub fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
    }
}
