//! What all CPUs of the guest have in common. Nothing here changes on the exit path but the memory, under its lock.

use core::sync::atomic::AtomicBool;

use spin::Mutex;

use super::cpuid::Policy;
use super::hypercall::Facts;
use super::memory::GuestMemory;
use super::microcode::Load;
use super::msr::Row;
use crate::mem::addr::Gpa;
use crate::mem::walk::ReadGuest;

/// Who acts on the messages that start CPUs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Startup {
    /// The local APICs: a CPU waits for its start-up IPI in the guest, and exits with it.
    Hardware,
    /// The local APICs as well: an INIT takes a CPU out of the guest, as it takes a bare one, and a start-up IPI leads it to
    /// Vidar, whichever of the guest's pages it names.
    Landing,
    /// Vidar: it sends each INIT, and a start-up IPI of its own with the vector of its trampoline.
    Emulated {
        /// The page of the trampoline.
        trampoline: u8,
    },
}

/// The machine that the guest runs on.
pub struct Machine<F, T> {
    /// What hypercalls tell of it.
    pub facts: Facts,
    /// What the guest's CPUID may show.
    pub cpuid: Policy,
    /// The tables of MSRs that are not simply the CPU's own.
    pub msrs: &'static [&'static [Row]],
    /// Who starts CPUs.
    pub startup: Startup,
    /// The local APIC's page, if the guest's writes to it are looked at.
    pub watched: Option<Gpa>,
    /// Bits of CR4 that the guest may set.
    pub cr4_allowed: u64,
    /// Bits of EFER that the guest may set, for a backend that is asked.
    pub efer_allowed: u64,
    /// Width of a physical address in bits.
    pub physical_address_bits: u32,
    /// The second stage. Its lock is taken only when a page is mapped or an MTRR changes.
    pub memory: Mutex<GuestMemory<F, T>>,
    /// That the guest touched Vidar's memory has been reported.
    pub touch_reported: AtomicBool,
    /// The guest's memory, to be read where a CPU of it has read just before.
    pub guest: &'static (dyn ReadGuest + Sync),
    /// Loads an update of the CPU's microcode.
    pub load_microcode: Load,
}
