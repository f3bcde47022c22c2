//! Stopping the other CPUs for a crash report. Only one CPU writes a report at a time. The report covers the whole
//! machine, except where an INIT would restart it: there the other CPUs run on.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use vidar_core::x86::icr::{Destination, Message};

use super::apic;

/// The value of `SPEAKER` while no CPU is writing a report: no CPU has this APIC ID.
const NOBODY: u64 = u64::MAX;

/// True once no CPU is needed by the boot order any more.
static ARMED: AtomicBool = AtomicBool::new(false);

/// True if an INIT stops a CPU that runs the guest.
static BY_INIT: AtomicBool = AtomicBool::new(false);

/// Notes that all CPUs are the guest's from now on, and whether an INIT stops each of them: it causes an exit, or takes
/// the CPU to where it waits. Earlier it would restart the boot CPU, and with it the machine.
pub fn arm(by_init: bool) {
    BY_INIT.store(by_init, Ordering::SeqCst);
    ARMED.store(true, Ordering::SeqCst);
}

/// Returns true once [`arm`] has been called.
pub fn is_armed() -> bool {
    ARMED.load(Ordering::SeqCst)
}

/// Returns true if [`others`] stops the other CPUs.
pub fn reaches_others() -> bool {
    is_armed() && BY_INIT.load(Ordering::SeqCst)
}

/// The APIC ID of the CPU that writes a crash report, or [`NOBODY`].
static SPEAKER: AtomicU64 = AtomicU64::new(NOBODY);

/// The APIC ID of the last CPU that has begun a report of a bug of Vidar's or of a machine check. It is [`NOBODY`] once
/// that report has been written.
static ABOUT_VIDAR: AtomicU64 = AtomicU64::new(NOBODY);

/// Notes that the CPU with the APIC ID `own` begins a report about Vidar itself. Returns false if it is writing one
/// already.
pub fn begin_about_vidar(own: u32) -> bool {
    ABOUT_VIDAR.swap(own.into(), Ordering::SeqCst) != u64::from(own)
}

/// Stops all CPUs but this one, whose APIC ID is `own`, and returns what the report says has ended: this CPU or the
/// machine. Once [`arm`] has been called, an INIT takes each of them out of the guest. Where an INIT would restart the
/// machine, none is sent, and the other CPUs keep running the guest. Returns `None` if another CPU has called this
/// function and still writes, and this one is to halt.
pub fn others(own: u32) -> Option<&'static str> {
    match SPEAKER.compare_exchange(NOBODY, own.into(), Ordering::SeqCst, Ordering::SeqCst) {
        Ok(_) if reaches_others() => apic::send(Message::Init, Destination::Others),
        Ok(_) => {}
        Err(speaker) if speaker == u64::from(own) => {}
        Err(_) => return None,
    }
    Some(if is_armed() && !reaches_others() { "this CPU" } else { "the machine" })
}

/// Tells the CPU with this APIC ID once more to stop, after [`others`].
pub fn again(apic_id: u32) {
    if reaches_others() {
        apic::send(Message::Init, Destination::Physical(apic_id));
    }
}

/// Notes that the CPU with the APIC ID `own` has written its report. Where the other CPUs run on, the next one that
/// crashes writes its own report.
pub fn reported(own: u32) {
    let give_back = |mark: &AtomicU64| {
        let _ = mark.compare_exchange(own.into(), NOBODY, Ordering::SeqCst, Ordering::SeqCst);
    };
    give_back(&ABOUT_VIDAR);
    if is_armed() && !reaches_others() {
        give_back(&SPEAKER);
    }
}

/// Returns true if a CPU has called [`others`], so that this CPU is to stop.
pub fn is_wanted() -> bool {
    reaches_others() && SPEAKER.load(Ordering::SeqCst) != NOBODY
}
