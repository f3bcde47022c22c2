//! The exception and interrupt handlers of scenarios.

#![expect(unsafe_code, reason = "a handler is kept as a number in an atomic variable")]

use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use crate::frame::Frame;

/// A scenario's own handler of one vector.
pub type Handler = fn(&mut Frame);

/// The address of the handler of each vector, or 0.
static HANDLERS: [AtomicUsize; 256] = [const { AtomicUsize::new(0) }; 256];

/// Runs `body` with `handler` for `vector`.
pub fn handling<T>(vector: u8, handler: Handler, body: impl FnOnce() -> T) -> T {
    HANDLERS[usize::from(vector)].store(handler as usize, Relaxed);
    let result = body();
    HANDLERS[usize::from(vector)].store(0, Relaxed);
    result
}

/// Returns the handler of the vector, if a scenario has set one.
pub fn of(vector: u64) -> Option<Handler> {
    let handler = HANDLERS[vector as usize & 0xff].load(Relaxed);
    // SAFETY: `handling` alone stores anything but 0 here, and what it stores is a `Handler`.
    (handler != 0).then(|| unsafe { core::mem::transmute::<usize, Handler>(handler) })
}

/// Removes all handlers, since a scenario that an unexpected exception ended has not removed its own.
pub fn remove_all() {
    for handler in &HANDLERS {
        handler.store(0, Relaxed);
    }
}
