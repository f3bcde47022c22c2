//! What the boot order needs of a virtualization extension. Only the modules that implement this name a vendor.

use vidar_abi::Vendor;

use super::refusal::Refusal;
use crate::arch::percpu::PerCpu;
use crate::arch::segments::Selectors;
use crate::mem::addr::{Hpa, PageSize};
use crate::mem::host::Frames;
use crate::mem::map::MemoryMap;
use crate::mem::mtrr::Mtrrs;
use crate::mem::stage2::Format;
use crate::vmm::backend::Vcpu;
use crate::vmm::cpuid::Features;
use crate::vmm::entry::EntryState;

/// An extension that this CPU has and Vidar can use, with what it can do.
pub trait Extension: Sized {
    /// What the guest is told of it.
    const VENDOR: Vendor;
    /// How it encodes the second stage.
    type Format: Format;
    /// The frames that a virtual CPU takes beside it.
    type Frames;
    /// A virtual CPU.
    type Cpu: Vcpu;

    /// Finds out what it can do here.
    ///
    /// # Errors
    /// [`Refusal`] where it cannot be used.
    fn probe() -> Result<Self, Refusal>;

    /// The largest page of the second stage.
    fn largest_page(&self) -> PageSize;

    /// Where the second stage's memory types come from.
    fn memory_types(&self) -> Mtrrs;

    /// Features that work in the guest.
    fn features(&self) -> Features;

    /// Bits of CR4 that the guest may set.
    fn cr4_allowed(&self) -> u64;

    /// Bits of EFER that the guest may set.
    fn efer_allowed(&self) -> u64;

    /// Takes a virtual CPU's frames, or gives `None` where there are too few.
    fn frames(frames: &mut Frames) -> Option<Self::Frames>;

    /// The boot CPU's virtual CPU, ready to run a guest that starts in `state` with the second stage at `root`. `map` is
    /// the machine's memory.
    ///
    /// # Errors
    /// [`Refusal::Extension`] where the CPU does not do as it said.
    fn cpu(
        self,
        frames: Self::Frames,
        root: Hpa,
        map: &MemoryMap,
        selectors: &Selectors,
        percpu: &'static PerCpu,
        state: &EntryState,
    ) -> Result<Self::Cpu, Refusal>;
}
