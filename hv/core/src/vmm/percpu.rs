//! The block of data that each CPU has for itself and reaches through GS.

use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, Ordering};

use spin::Once;
use vidar_abi::ExitKind;

use super::crash::Snapshot;
use super::guard::flushed::Flushed;
use super::startup::StartupState;
use crate::trace::ring::Ring;
use crate::x86::icr::Address;

/// The numbers of exits, by kind. Only the owning CPU counts; others may read.
#[derive(Debug)]
pub struct Counters([AtomicU64; ExitKind::COUNT]);

impl Counters {
    /// Returns counters that are all 0.
    pub const fn new() -> Self {
        Self([const { AtomicU64::new(0) }; ExitKind::COUNT])
    }

    /// Counts one exit. There is a single writer, so a load and a store suffice, without a locked instruction.
    pub fn count(&self, kind: ExitKind) {
        let counter = &self.0[kind as usize];
        counter.store(counter.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    }

    /// Returns the number of exits of `kind` so far.
    pub fn get(&self, kind: ExitKind) -> u64 {
        self.0[kind as usize].load(Ordering::Relaxed)
    }

    /// Returns the number of exits of all kinds so far.
    pub fn total(&self) -> u64 {
        self.0.iter().map(|counter| counter.load(Ordering::Relaxed)).sum()
    }
}

impl Default for Counters {
    fn default() -> Self {
        Self::new()
    }
}

/// Events that arrived while Vidar ran and are the guest's, as bits.
pub mod pending {
    /// A non-maskable interrupt.
    pub const NMI: u8 = 1 << 0;
    /// A machine check.
    pub const MACHINE_CHECK: u8 = 1 << 1;
}

/// The per-CPU block, which shares no cache line with another. The VM-entry assembly reads `pending` by its offset from
/// GS.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct PerCpu {
    /// The address of this block, at offset 0 so that a read of GS:0 returns it.
    this: AtomicPtr<PerCpu>,
    /// The number of the CPU; 0 is the boot CPU.
    pub index: u32,
    /// The ID of the CPU's local APIC.
    pub apic_id: u32,
    /// The events of [`pending`] that the CPU takes up before its next entry.
    pending: AtomicU8,
    /// True while the guest runs on this CPU and can take a machine check that arrives while Vidar runs.
    takes_machine_checks: AtomicBool,
    /// The CPU's state between INIT and start-up IPI, if Vidar starts CPUs.
    pub startup: StartupState,
    /// The logical destination and destination format registers of the CPU's local APIC, if Vidar sees writes to them.
    logical: [AtomicU32; 2],
    /// The value of IA32_PAT that Vidar found on the CPU, and that the guest starts with.
    guest_pat: AtomicU64,
    /// True while the guest has XD Bit Disable of IA32_MISC_ENABLE set, so that it has no no-execute pages. INIT does
    /// not clear it.
    pub xd_disabled: AtomicBool,
    /// The protections that the guard has pinned on this CPU, as bits by their numbers.
    pub pinned: AtomicU32,
    /// The CPU's last state, once it has stopped for good.
    stopped: AtomicPtr<Snapshot>,
    /// True if another CPU has sent an NMI to this one, to make it stop for gdb. The NMI is not the guest's.
    called: AtomicBool,
    /// True if an NMI of the serial line to gdb comes.
    rung: AtomicBool,
    /// What this CPU may have cached of the second stage.
    pub flushed: Flushed,
    /// The exits of this CPU.
    pub counters: Counters,
    /// The trace of the last exits, if it is kept.
    pub trace: Once<&'static Ring>,
}

impl PerCpu {
    /// The offset from GS of the byte that is 0 if no event is pending for the guest.
    pub const PENDING: usize = core::mem::offset_of!(PerCpu, pending);

    /// Returns a block for the CPU `index`, whose local APIC has the ID `apic_id`. It must still be put in its place
    /// with [`PerCpu::place`].
    pub const fn new(index: u32, apic_id: u32) -> Self {
        Self {
            this: AtomicPtr::new(core::ptr::null_mut()),
            index,
            apic_id,
            pending: AtomicU8::new(0),
            takes_machine_checks: AtomicBool::new(false),
            startup: StartupState::running(),
            logical: [AtomicU32::new(Address::RESET.0), AtomicU32::new(Address::RESET.1)],
            guest_pat: AtomicU64::new(0),
            xd_disabled: AtomicBool::new(false),
            pinned: AtomicU32::new(0),
            stopped: AtomicPtr::new(core::ptr::null_mut()),
            called: AtomicBool::new(false),
            rung: AtomicBool::new(false),
            flushed: Flushed::absent(),
            counters: Counters::new(),
            trace: Once::new(),
        }
    }

    /// Notes that the next NMI is a call from another CPU, which sends it after that.
    pub fn call(&self) {
        self.called.store(true, Ordering::SeqCst);
    }

    /// Returns true if another CPU calls this one, and the NMI has not been taken yet.
    pub fn is_called(&self) -> bool {
        self.called.load(Ordering::SeqCst)
    }

    /// Notes an NMI, which is pending for the guest unless it is a call from another CPU or comes from gdb's line. An
    /// NMI of the guest's own that comes before the CPU has taken such a one is the same to the CPU, and so to Vidar.
    pub fn note_nmi(&self) {
        if !self.take_call() && !self.take_ring() {
            self.add_pending(pending::NMI);
        }
    }

    /// Notes that the serial line to gdb has sent this CPU an NMI.
    pub fn ring(&self) {
        self.rung.store(true, Ordering::SeqCst);
    }

    /// Returns true if the NMI of the line has not been taken yet.
    pub fn is_rung(&self) -> bool {
        self.rung.load(Ordering::SeqCst)
    }

    /// Returns true if the next NMI was that of the line. From now on it is the guest's.
    pub fn take_ring(&self) -> bool {
        self.rung.swap(false, Ordering::SeqCst)
    }

    /// Returns true if the next NMI was a call from another CPU. From now on it is the guest's.
    pub fn take_call(&self) -> bool {
        self.called.swap(false, Ordering::SeqCst)
    }

    /// Returns true if this is the boot CPU, which does not wait for a start-up IPI after INIT.
    pub const fn is_boot_cpu(&self) -> bool {
        self.index == 0
    }

    /// Adds events of [`pending`] to those that are pending for the guest.
    pub fn add_pending(&self, event: u8) {
        self.pending.fetch_or(event, Ordering::Relaxed);
    }

    /// Returns all events that are pending, and clears them.
    pub fn take_pending(&self) -> u8 {
        self.pending.swap(0, Ordering::Relaxed)
    }

    /// Drops the events that are pending for the guest, as INIT does. If another CPU has called this one, an NMI among
    /// them was the call.
    pub fn drop_pending(&self) {
        if self.take_pending() & pending::NMI != 0 && self.startup.is_called() {
            self.startup.arrived();
        }
    }

    /// Returns true if a machine check that arrives while Vidar runs can be kept for the guest.
    pub fn takes_machine_checks(&self) -> bool {
        self.takes_machine_checks.load(Ordering::Relaxed)
    }

    /// Sets what [`PerCpu::takes_machine_checks`] returns.
    pub fn set_takes_machine_checks(&self, takes: bool) {
        self.takes_machine_checks.store(takes, Ordering::Relaxed);
    }

    /// Returns the value of IA32_PAT that the guest starts with.
    pub fn guest_pat(&self) -> u64 {
        self.guest_pat.load(Ordering::Relaxed)
    }

    /// Stores the value of IA32_PAT that Vidar found on this CPU.
    pub fn set_guest_pat(&self, value: u64) {
        self.guest_pat.store(value, Ordering::Relaxed);
    }

    /// Returns a pointer to the CPU's last state. It is null unless the CPU has stopped for good.
    pub fn stopped(&self) -> *const Snapshot {
        self.stopped.load(Ordering::Acquire)
    }

    /// Sets what [`PerCpu::stopped`] returns.
    pub fn set_stopped(&self, snapshot: *const Snapshot) {
        self.stopped.store(snapshot.cast_mut(), Ordering::Release);
    }

    /// Returns the IDs by which messages reach the CPU's local APIC.
    pub fn address(&self) -> Address {
        let [logical, format] = self.logical.each_ref().map(|register| register.load(Ordering::Relaxed));
        Address { id: self.apic_id, logical, format }
    }

    /// Puts the IDs into the state after INIT.
    pub fn reset_address(&self) {
        self.set_logical_destination(Address::RESET.0);
        self.set_destination_format(Address::RESET.1);
    }

    /// Stores the value of the logical destination register.
    pub fn set_logical_destination(&self, value: u32) {
        self.logical[0].store(value, Ordering::Relaxed);
    }

    /// Stores the value of the destination format register.
    pub fn set_destination_format(&self, value: u32) {
        self.logical[1].store(value, Ordering::Relaxed);
    }

    /// Stores the block's own address in it, and returns the block, which never moves from then on.
    pub fn place(block: &'static mut Self) -> &'static Self {
        block.this = AtomicPtr::new(block);
        block
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_exit_has_its_own_counter() {
        let counters = Counters::new();
        counters.count(ExitKind::Cpuid);
        counters.count(ExitKind::Cpuid);
        counters.count(ExitKind::Other);
        assert_eq!(counters.get(ExitKind::Cpuid), 2);
        assert_eq!(counters.get(ExitKind::Rdmsr), 0);
        assert_eq!(counters.total(), 3);
    }

    #[test]
    fn a_kept_event_is_taken_once() {
        let percpu = PerCpu::new(0, 0);
        percpu.note_nmi();
        percpu.add_pending(pending::MACHINE_CHECK);
        percpu.note_nmi();
        assert_eq!(percpu.take_pending(), pending::NMI | pending::MACHINE_CHECK);
        assert_eq!(percpu.take_pending(), 0);
    }

    #[test]
    fn a_call_that_is_dropped_with_other_events_has_arrived() {
        let percpu = PerCpu::new(1, 1);
        percpu.note_nmi();
        percpu.drop_pending();
        assert!(!percpu.startup.is_waiting(), "an NMI without a call is no INIT");
        assert!(percpu.startup.init());
        percpu.drop_pending();
        assert!(percpu.startup.is_called(), "no NMI has come");
        percpu.note_nmi();
        percpu.drop_pending();
        assert!(!percpu.startup.is_called());
    }

    #[test]
    fn an_nmi_that_is_a_call_is_not_the_guests() {
        let percpu = PerCpu::new(0, 0);
        percpu.call();
        percpu.note_nmi();
        assert_eq!(percpu.take_pending(), 0);
        percpu.note_nmi();
        assert_eq!(percpu.take_pending(), pending::NMI, "the next one is the guest's");
    }
}
