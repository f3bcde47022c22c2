//! The state that all CPUs of the guest share. What changes of it on the exit path has a lock of its own, or is atomic.

use core::ops::Range;
use core::sync::atomic::AtomicBool;

use spin::Mutex;
use vidar_abi::{Commit, Vendor};

use super::guard::kernel::{Guest, GuestKernel};
use super::guard::locked::Locked;
use super::kept_pin::KeptPin;
use super::memory::GuestMemory;
use super::observer::Wanted;
use super::percpu::PerCpu;
use super::refusals::Refusals;
use super::update::LoadMicrocode;
use super::vcpu::Vcpu;
use crate::iommu::guard::DmaGuard;
use crate::mem::addr::{Gpa, Hpa, PAGE_SIZE, overlaps};
use crate::mem::ranges::RangeSet;
use crate::mem::walk::ReadGuest;
use crate::policy::control::Controls;
use crate::policy::cpuid::Policy;
use crate::policy::guard::Guard;
use crate::policy::msr::Row;

/// Who acts on the INITs and start-up IPIs that the guest sends. `W` is the [`Vcpu::WaitForSipi`] of the extension.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Startup<W> {
    /// The local APICs send them. A CPU waits in the guest for its start-up IPI, which makes it exit.
    Hardware(W),
    /// The local APIC sends them. The boot CPU is the only CPU, so no other can receive them.
    Alone,
    /// The local APICs send them. An INIT takes a CPU out of the guest as it would a bare CPU, and a start-up IPI leads
    /// the CPU to Vidar, whichever of the guest's pages it names.
    Landing,
    /// Nobody sends them: Vidar does what they would have done, and a CPU waits in the guest for its start-up IPI.
    Emulated {
        /// The number of the page in which CPUs wait. It is `None` if no CPU needs it, or if no page is free for it:
        /// then the boot CPU is the only one under Vidar's control.
        room: Option<u8>,
    },
}

impl<W> Startup<W> {
    /// Returns true if Vidar does what INITs and start-up IPIs would have done.
    pub const fn is_emulated(&self) -> bool {
        matches!(self, Self::Emulated { .. })
    }
}

/// Reads a log: copies bytes from a position on into the buffer, and returns the position of the first byte and the
/// number of bytes.
pub type ReadLog = fn(u64, &mut [u8]) -> (u64, usize);

/// What hypercalls report of Vidar on this machine.
pub struct Host {
    /// The ranges of memory that Vidar keeps for itself. The first is the region, which holds its image.
    pub kept: &'static [Range<Hpa>],
    /// The range of memory that Vidar reserves for the guest's CPUs. It is empty if there is none.
    pub lent: Range<Hpa>,
    /// The extension in use.
    pub vendor: Vendor,
    /// The commit that Vidar was built from, if it is known.
    pub commit: Option<Commit>,
    /// The blocks of the CPUs on which Vidar runs, indexed by the number of the CPU.
    pub cpus: &'static [&'static PerCpu],
    /// What the guard has refused, if there is a guard.
    pub guard: Option<Refusals>,
    /// Reads the log.
    pub log: ReadLog,
    /// Reads the log of the last start in the same way.
    pub last_log: ReadLog,
    /// The memory of the record of the last start that Linux' module `ramoops` can read. It is empty if there is none.
    pub record: Range<Hpa>,
    /// The guard of Vidar's memory against devices.
    pub dma: &'static DmaGuard,
}

/// The machine that a guest runs on, with virtual CPUs of the type `V`.
pub struct Machine<V: Vcpu, T> {
    /// What hypercalls report.
    pub host: Host,
    /// What the boot options want observed.
    pub wanted: Wanted,
    /// The policy for the guest's CPUID.
    pub cpuid: Policy,
    /// What Vidar guards.
    pub guard: Guard,
    /// Knows the guest's kernel, for the guard.
    pub kernel: &'static (dyn GuestKernel + Sync),
    /// What the guard has locked of the guest's memory.
    pub locked: Locked,
    /// The tables of the MSRs that do not pass through to the CPU.
    pub msrs: &'static [&'static [Row]],
    /// Who starts CPUs.
    pub startup: Startup<V::WaitForSipi>,
    /// The addresses of the machine's pages that lead CPUs to Vidar, in place of the guest's, which are moved.
    pub replaced: Option<Range<Hpa>>,
    /// The local APIC's page, if the guest's writes to it exit.
    pub watched: Option<Gpa>,
    /// Bits of EFER that the guest may set, LMA aside. Only writes that exit are checked against it.
    pub efer_allowed: u64,
    /// The pin of an I/O APIC that Vidar keeps for the debugger, if it does.
    pub kept_pin: Option<KeptPin>,
    /// The guest's RAM, as it was told at its start.
    pub ram: RangeSet,
    /// The width of a physical address in bits.
    pub physical_address_bits: u32,
    /// The second stage. Its lock is taken only when a page is mapped or an MTRR changes.
    pub memory: Mutex<GuestMemory<V::Format, T>>,
    /// True once Vidar has reported that the guest touched Vidar's memory.
    pub touch_reported: AtomicBool,
    /// True once Vidar has reported that no frames are left for second-stage tables.
    pub fill_reported: AtomicBool,
    /// The root of Vidar's own page tables.
    pub host_root: Hpa,
    /// Reads the guest's memory, at addresses that the guest's CPUs read or could read.
    pub guest: &'static (dyn ReadGuest + Sync),
    /// Loads an update of the CPU's microcode.
    pub load_microcode: LoadMicrocode,
}

/// The message for a guest whose CR3 holds the root of Vidar's own page tables.
pub const RUNS_VIDAR: &str = "the guest's CR3 is Vidar's own: the guest has copied it, or the CPU or its emulator has run Vidar's code as \
     the guest's, which is its fault (in QEMU use -accel tcg,thread=single)";

impl<V: Vcpu, T> Machine<V, T> {
    /// Returns the guest's memory, to look for its kernel there.
    pub fn guest(&self) -> Guest<'_> {
        Guest { memory: self.guest, ram: &self.ram }
    }

    /// Returns true if CR3 of `controls` holds the root of Vidar's own page tables.
    pub fn runs_vidar(&self, controls: &Controls) -> bool {
        Hpa(controls.cr3).align_down(PAGE_SIZE) == self.host_root
    }

    /// Returns true if the guest may not place a device at `range`, because it overlaps Vidar's own memory, the pages
    /// that lead CPUs to Vidar, or the registers of IOMMUs that guard Vidar's memory and of the I/O APIC of
    /// which Vidar keeps a pin.
    pub fn keeps(&self, range: &Range<Hpa>) -> bool {
        let kept = self.host.kept.iter().chain(&self.replaced).cloned();
        let pin = self.kept_pin.iter().map(|kept| kept.page.clone());
        kept.chain(self.host.dma.registers()).chain(pin).any(|kept| overlaps(range, &kept))
    }
}
