//! What all CPUs of the guest have in common. Nothing here changes on the exit path but the memory, under its lock.

use core::sync::atomic::AtomicBool;

use spin::Mutex;

use super::cpuid::Policy;
use super::hypercall::Facts;
use super::memory::GuestMemory;
use crate::mem::addr::Gpa;

/// The machine that the guest runs on.
pub struct Machine<F, T> {
    /// What hypercalls tell of it.
    pub facts: Facts,
    /// What the guest's CPUID may show.
    pub cpuid: Policy,
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
    /// Reads four words of guest RAM; asked only for addresses where the guest has RAM.
    pub read_ram: fn(Gpa) -> [u64; 4],
}
