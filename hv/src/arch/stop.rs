//! Stopping the other CPUs, for last words: one CPU speaks, and whatever it says holds for the machine.

use core::sync::atomic::{AtomicU64, Ordering};

use super::icr::{Destination, Message};
use super::{apic, instructions};

/// No CPU has this APIC ID.
const NOBODY: u64 = u64::MAX;

static SPEAKER: AtomicU64 = AtomicU64::new(NOBODY);

/// Stops all CPUs but this one, whose APIC ID is `own`, by an INIT that takes each out of the guest. A CPU that comes
/// second stops here itself.
pub fn others(own: u32) {
    match SPEAKER.compare_exchange(NOBODY, own.into(), Ordering::SeqCst, Ordering::SeqCst) {
        Ok(_) => apic::send(Message::Init, Destination::Others),
        Err(speaker) if speaker == u64::from(own) => {}
        Err(_) => instructions::halt_forever(),
    }
}

/// Whether another CPU wants this one to stop.
pub fn is_wanted() -> bool {
    SPEAKER.load(Ordering::SeqCst) != NOBODY
}
