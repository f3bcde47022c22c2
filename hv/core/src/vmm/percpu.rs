//! The block that each CPU has for itself, reached through GS. Nothing on the exit path is shared between CPUs.

use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, Ordering};

use vidar_abi::ExitKind;

use super::startup::Startup;
use crate::x86::icr::Address;

/// How often the guest has left to Vidar, by kind. Only the owning CPU counts; others may read.
#[derive(Debug)]
pub struct Counters([AtomicU64; ExitKind::COUNT]);

impl Counters {
    /// All zero.
    pub const fn new() -> Self {
        Self([const { AtomicU64::new(0) }; ExitKind::COUNT])
    }

    /// Counts one exit. With a single writer a load and a store do, and need no locked instruction.
    pub fn count(&self, kind: ExitKind) {
        let counter = &self.0[kind as usize];
        counter.store(counter.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    }

    /// Exits of `kind` so far.
    pub fn get(&self, kind: ExitKind) -> u64 {
        self.0[kind as usize].load(Ordering::Relaxed)
    }

    /// Exits of all kinds so far.
    pub fn total(&self) -> u64 {
        self.0.iter().map(|counter| counter.load(Ordering::Relaxed)).sum()
    }
}

impl Default for Counters {
    fn default() -> Self {
        Self::new()
    }
}

/// Events that came while Vidar ran and belong to the guest.
pub mod kept {
    /// A non-maskable interrupt.
    pub const NMI: u8 = 1 << 0;
    /// A machine check.
    pub const MACHINE_CHECK: u8 = 1 << 1;
}

/// The per-CPU block, in cache lines of its own. The VM-entry assembly reads `kept` by its offset from GS.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct PerCpu {
    /// The address of this block: what GS:0 reads.
    this: AtomicPtr<PerCpu>,
    /// Number of the CPU, from 0 for the one that booted.
    pub index: u32,
    /// ID of its local APIC.
    pub apic_id: u32,
    /// The events of [`kept`], which are delivered with the next entry.
    kept: AtomicU8,
    /// The guest runs on this CPU and can take a machine check that came while Vidar ran.
    takes_machine_checks: AtomicBool,
    /// Whether it waits for a start-up IPI, where Vidar decides that.
    pub startup: Startup,
    /// Its logical destination and destination format registers, where Vidar sees them written.
    logical: [AtomicU32; 2],
    /// The PAT that it had before Vidar's.
    guest_pat: AtomicU64,
    /// The guest has set XD Bit Disable in IA32_MISC_ENABLE: for it there are no no-execute pages. INIT leaves it so.
    pub xd_disabled: AtomicBool,
    /// Exits of this CPU.
    pub counters: Counters,
}

impl PerCpu {
    /// Offset from GS of the byte that is 0 if nothing is kept for the guest.
    pub const KEPT: usize = core::mem::offset_of!(PerCpu, kept);

    /// A block for the CPU `index`, not yet any CPU's own.
    pub const fn new(index: u32, apic_id: u32) -> Self {
        Self {
            this: AtomicPtr::new(core::ptr::null_mut()),
            index,
            apic_id,
            kept: AtomicU8::new(0),
            takes_machine_checks: AtomicBool::new(false),
            startup: Startup::running(),
            logical: [AtomicU32::new(Address::RESET.0), AtomicU32::new(Address::RESET.1)],
            guest_pat: AtomicU64::new(0),
            xd_disabled: AtomicBool::new(false),
            counters: Counters::new(),
        }
    }

    /// Returns true if this is the CPU that booted: after INIT it does not wait for anyone.
    pub const fn is_boot_cpu(&self) -> bool {
        self.index == 0
    }

    /// Keeps an event of [`kept`] for the guest.
    pub fn keep(&self, event: u8) {
        self.kept.fetch_or(event, Ordering::Relaxed);
    }

    /// Takes all that is kept.
    pub fn take_kept(&self) -> u8 {
        self.kept.swap(0, Ordering::Relaxed)
    }

    /// Returns true if a machine check that comes while Vidar runs can be kept for the guest.
    pub fn takes_machine_checks(&self) -> bool {
        self.takes_machine_checks.load(Ordering::Relaxed)
    }

    /// Says whether it can.
    pub fn set_takes_machine_checks(&self, takes: bool) {
        self.takes_machine_checks.store(takes, Ordering::Relaxed);
    }

    /// The PAT that the guest begins with.
    pub fn guest_pat(&self) -> u64 {
        self.guest_pat.load(Ordering::Relaxed)
    }

    /// Notes the PAT that was found on this CPU.
    pub fn set_guest_pat(&self, value: u64) {
        self.guest_pat.store(value, Ordering::Relaxed);
    }

    /// What its local APIC answers to.
    pub fn address(&self) -> Address {
        let [logical, format] = self.logical.each_ref().map(|register| register.load(Ordering::Relaxed));
        Address { id: self.apic_id, logical, format }
    }

    /// Notes its logical destination register.
    pub fn set_logical_destination(&self, value: u32) {
        self.logical[0].store(value, Ordering::Relaxed);
    }

    /// Notes its destination format register.
    pub fn set_destination_format(&self, value: u32) {
        self.logical[1].store(value, Ordering::Relaxed);
    }

    /// The block in its place, where it stays: others send to it and read its counters.
    pub fn place(block: &'static mut Self) -> &'static Self {
        block.this = AtomicPtr::new(block);
        block
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_count_apart() {
        let counters = Counters::new();
        counters.count(ExitKind::Cpuid);
        counters.count(ExitKind::Cpuid);
        counters.count(ExitKind::Other);
        assert_eq!(counters.get(ExitKind::Cpuid), 2);
        assert_eq!(counters.get(ExitKind::Rdmsr), 0);
        assert_eq!(counters.total(), 3);
    }

    #[test]
    fn what_is_kept_is_taken_once() {
        let percpu = PerCpu::new(0, 0);
        percpu.keep(kept::NMI);
        percpu.keep(kept::MACHINE_CHECK);
        percpu.keep(kept::NMI);
        assert_eq!(percpu.take_kept(), kept::NMI | kept::MACHINE_CHECK);
        assert_eq!(percpu.take_kept(), 0);
    }
}
