//! What a CPU may have cached of the second stage.

use core::sync::atomic::{AtomicU32, Ordering};

/// The number of the last change of rights before a CPU flushed its translations, plus 1. It is 0 while the CPU does
/// not run the guest, since it flushes before it does.
#[derive(Debug, Default)]
pub struct Flushed(AtomicU32);

impl Flushed {
    /// Returns the state of a CPU that does not run the guest.
    pub const fn absent() -> Self {
        Self(AtomicU32::new(0))
    }

    /// Notes that the CPU waits for a start-up IPI.
    pub fn leaves(&self) {
        self.0.store(0, Ordering::Release);
    }

    /// Notes that the CPU has flushed its translations after the change with this number.
    pub fn after(&self, change: u32) {
        self.0.store(change + 1, Ordering::Release);
    }

    /// Returns true if the CPU has cached nothing from before the change with this number.
    pub fn is_after(&self, change: u32) -> bool {
        match self.0.load(Ordering::Acquire) {
            0 => true,
            flushed => flushed > change,
        }
    }
}
