//! The block that each CPU has for itself, reached through GS. Nothing on the exit path is shared between CPUs.

#![cfg_attr(target_os = "none", expect(unsafe_code, reason = "GS is dereferenced here"))]

use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, Ordering};

use vidar_abi::ExitKind;

use super::icr::Address;
use super::startup::Startup;

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

/// The per-CPU block, in cache lines of its own. The VM-entry assembly reads `nmi_pending` by its offset from GS.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct PerCpu {
    /// The address of this block: what GS:0 reads.
    this: AtomicPtr<PerCpu>,
    /// Number of the CPU, from 0 for the one that booted.
    pub index: u32,
    /// ID of its local APIC.
    pub apic_id: u32,
    /// An NMI came while Vidar ran; it belongs to the guest and is delivered with the next VM entry.
    pub nmi_pending: AtomicBool,
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
    /// Offset of [`PerCpu::nmi_pending`] from GS.
    pub const NMI_PENDING: usize = core::mem::offset_of!(PerCpu, nmi_pending);

    /// A block for the CPU `index`, not yet any CPU's own.
    pub const fn new(index: u32, apic_id: u32) -> Self {
        Self {
            this: AtomicPtr::new(core::ptr::null_mut()),
            index,
            apic_id,
            nmi_pending: AtomicBool::new(false),
            startup: Startup::running(),
            logical: [AtomicU32::new(Address::RESET.0), AtomicU32::new(Address::RESET.1)],
            guest_pat: AtomicU64::new(0),
            xd_disabled: AtomicBool::new(false),
            counters: Counters::new(),
        }
    }

    /// Whether this is the CPU that booted: after INIT it does not wait for anyone.
    pub const fn is_boot_cpu(&self) -> bool {
        self.index == 0
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

    /// Makes `block` this CPU's own.
    #[cfg(target_os = "none")]
    pub fn install(block: &'static Self) {
        // SAFETY: nothing else in Vidar uses GS, and the block lives for ever.
        unsafe { super::msr::write(super::msr::GS_BASE, &raw const *block as u64) };
    }

    /// This CPU's block, or `None` before [`PerCpu::install`].
    #[cfg(target_os = "none")]
    pub fn current() -> Option<&'static Self> {
        if super::msr::read(super::msr::GS_BASE) == 0 {
            return None;
        }
        let this: *const Self;
        // SAFETY: a GS base that is not zero is the block that `install` put there, whose first field is its address.
        unsafe {
            core::arch::asm!("mov {}, gs:[0]", out(reg) this, options(nostack, readonly, preserves_flags));
            this.as_ref()
        }
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
}
