//! What the boot order needs of a virtualization extension. Only the files of this room name both vendors.
//!
//! | file | what it is for |
//! |---|---|
//! | [`amd`] | AMD-V as an [`Extension`]. |
//! | [`intel`] | VT-x as an [`Extension`]. |

pub mod amd;
pub mod intel;

use vidar_abi::Vendor;
use vidar_core::boot::refusal::{Difference, Names, Refusal};
use vidar_core::mem::addr::{Hpa, PageSize};
use vidar_core::mem::mtrr::Mtrrs;
use vidar_core::mem::stage2::Format;
use vidar_core::policy::features::Features;
use vidar_core::policy::msr::Row;
use vidar_core::vmm::entry::Begin;
use vidar_core::vmm::percpu::PerCpu;
use vidar_core::vmm::vcpu::Vcpu;

use crate::arch::segments::Selectors;
use crate::host::physical::GuestReader;
use crate::host::tables::Frames;

/// An extension that this CPU has and Vidar can use, with what it can do. Two CPUs whose extensions do not differ can run the
/// same guest.
pub trait Extension: Clone + Send + Sync + 'static {
    /// What the guest is told of it.
    const VENDOR: Vendor;
    /// What people call it.
    const NAMES: Names;
    /// The MSRs that are not simply the guest's on it.
    const MSRS: &'static [&'static [Row]];
    /// The MSRs that are refused as well where a hypervisor is below Vidar.
    const NESTED: &'static [Row];
    /// Frames that a further CPU takes.
    const FRAMES: usize;
    /// How it encodes the second stage.
    type Format: Format;
    /// The frames that a virtual CPU takes beside it.
    type Frames: Copy + Send + Sync;
    /// A virtual CPU.
    type Cpu: Vcpu;

    /// Finds out what it can do on this CPU.
    ///
    /// # Errors
    /// [`Refusal`] where it cannot be used.
    fn probe() -> Result<Self, Refusal>;

    /// What is not the same on `other`, another CPU; `None` if all that matters is.
    fn difference(&self, other: &Self) -> Option<Difference>;

    /// Tells the log of it.
    fn describe(&self);

    /// Returns true if a CPU can wait for a start-up IPI in the guest.
    fn waits_for_sipi(&self) -> bool;

    /// Returns true if an INIT in the guest can be left to the CPU, which then waits for its start-up IPI outside of the
    /// extension, as a bare one does.
    fn leaves_init_to_the_cpu(&self) -> bool;

    /// The largest page of the second stage.
    fn largest_page(&self) -> PageSize;

    /// Where the second stage's memory types come from.
    fn memory_types(&self) -> Mtrrs;

    /// Bits of physical addresses that choose no other memory, but how it is encrypted.
    fn alias(&self) -> u64;

    /// By how many bits physical addresses are narrower than CPUID says.
    fn narrower(&self) -> u32 {
        0
    }

    /// Features that work in the guest.
    fn features(&self) -> Features;

    /// Bits of CR4 that the guest may set.
    fn cr4_allowed(&self) -> u64;

    /// Bits of EFER that the guest may set.
    fn efer_allowed(&self) -> u64;

    /// Takes the frames of the MSR map, which all CPUs share, or gives `None` where there are too few.
    fn msr_map(frames: &mut Frames) -> Option<Hpa>;

    /// Fills it, by the policy's tables.
    fn fill_msr_map(map: Hpa, tables: &[&[Row]]);

    /// Takes a virtual CPU's frames, beside the MSR map at `map`, or gives `None` where there are too few.
    fn frames(frames: &mut Frames, map: Hpa) -> Option<Self::Frames>;

    /// This CPU's virtual CPU, ready to run a guest that begins as `begin` says, with the second stage at `root`; `reader`
    /// reads the guest's memory.
    ///
    /// # Errors
    /// [`Refusal::Extension`] where the CPU does not do as it said.
    fn cpu(
        &self,
        frames: Self::Frames,
        root: Hpa,
        reader: GuestReader,
        selectors: &Selectors,
        percpu: &'static PerCpu,
        begin: &Begin,
    ) -> Result<Self::Cpu, Refusal>;
}
