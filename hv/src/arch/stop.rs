//! Stopping the other CPUs, for last words: one CPU speaks, and whatever it says holds for the machine.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use vidar_core::x86::icr::{Destination, Message};

use super::{apic, instructions};

/// No CPU has this APIC ID.
const NOBODY: u64 = u64::MAX;

static ARMED: AtomicBool = AtomicBool::new(false);

/// From now on all CPUs run the guest: an INIT exits, or takes a CPU to where it waits. Before, it would restart the
/// boot CPU, and with it the machine.
pub fn arm() {
    ARMED.store(true, Ordering::SeqCst);
}

/// True once all CPUs run the guest.
pub fn is_armed() -> bool {
    ARMED.load(Ordering::SeqCst)
}

static SPEAKER: AtomicU64 = AtomicU64::new(NOBODY);

/// Stops all CPUs but this one, whose APIC ID is `own`, by an INIT that takes each out of the guest. A CPU that comes
/// second stops here itself.
pub fn others(own: u32) {
    match SPEAKER.compare_exchange(NOBODY, own.into(), Ordering::SeqCst, Ordering::SeqCst) {
        Ok(_) if ARMED.load(Ordering::SeqCst) => apic::send(Message::Init, Destination::Others),
        Ok(_) => {}
        Err(speaker) if speaker == u64::from(own) => {}
        Err(_) => instructions::halt_forever(),
    }
}

/// Returns true if another CPU wants this one to stop.
pub fn is_wanted() -> bool {
    SPEAKER.load(Ordering::SeqCst) != NOBODY
}
