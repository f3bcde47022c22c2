//! The time that the load runs for.

use std::sync::atomic::{AtomicBool, Ordering};

/// A run, which the main thread ends. All other threads look at it between two steps of their work.
#[derive(Default)]
pub struct Run {
    over: AtomicBool,
}

impl Run {
    /// Returns true if the threads are to stop.
    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// Tells all threads to stop.
    pub fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
    }
}
