//! What all CPUs of the guest have in common. Nothing here changes on the exit path but the memory, under its lock.

use core::ops::Range;
use core::sync::atomic::AtomicBool;

use spin::Mutex;
use vidar_abi::Vendor;

use super::memory::GuestMemory;
use super::percpu::PerCpu;
use super::update::Load;
use crate::mem::addr::{Gpa, Hpa, PAGE_SIZE, overlaps};
use crate::mem::walk::ReadGuest;
use crate::policy::control::Controls;
use crate::policy::cpuid::Policy;
use crate::policy::msr::Row;

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

/// What Vidar is on this machine. Hypercalls read it.
pub struct Host {
    /// The memory that Vidar keeps for itself. The memory of its image comes first.
    pub kept: &'static [Range<Hpa>],
    /// The extension in use.
    pub vendor: Vendor,
    /// The CPUs on which Vidar runs, by their numbers.
    pub cpus: &'static [&'static PerCpu],
    /// Reads the log: copies bytes from a position on, and returns the position of the first byte and how many there are.
    pub log: fn(u64, &mut [u8]) -> (u64, usize),
}

/// The machine that the guest runs on.
pub struct Machine<F, T> {
    /// What Vidar is on it.
    pub host: Host,
    /// What the guest's CPUID may show.
    pub cpuid: Policy,
    /// The tables of MSRs that are not simply the CPU's own.
    pub msrs: &'static [&'static [Row]],
    /// Who starts CPUs.
    pub startup: Startup,
    /// The machine's pages by which start-up IPIs lead to Vidar; empty but with [`Startup::Landing`].
    pub landing: Range<Hpa>,
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
    /// That there were no frames for a page's tables has been reported.
    pub fill_reported: AtomicBool,
    /// The root of Vidar's own page tables.
    pub host_root: Hpa,
    /// The guest's memory, to be read where a CPU of it has just read, or could.
    pub guest: &'static (dyn ReadGuest + Sync),
    /// Loads an update of the CPU's microcode.
    pub load_microcode: Load,
}

/// What it means that a guest has Vidar's own page tables.
pub const RUNS_VIDAR: &str = "the guest's CR3 is Vidar's own: the guest has copied it, or the CPU or its emulator has run Vidar's code as \
     the guest's, which is its fault (in QEMU use -accel tcg,thread=single)";

impl<F, T> Machine<F, T> {
    /// Returns true if these are the registers of Vidar itself, and not of a guest.
    pub fn runs_vidar(&self, controls: &Controls) -> bool {
        Hpa(controls.cr3).align_down(PAGE_SIZE) == self.host_root
    }

    /// Returns true if no device may be laid over these addresses: some of them are Vidar's, or start-up IPIs lead to Vidar by
    /// what is there.
    pub fn keeps(&self, range: &Range<Hpa>) -> bool {
        self.host.kept.iter().chain([&self.landing]).any(|kept| overlaps(range, kept))
    }
}
