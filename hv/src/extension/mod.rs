//! What the boot order needs from a virtualization extension. Only the files of this room name both vendors.
//!
//! | file | what it is for |
//! |---|---|
//! | [`amd`] | AMD-V as an [`Extension`]. |
//! | [`intel`] | VT-x as an [`Extension`]. |

pub mod amd;
pub mod intel;

use vidar_abi::Vendor;
use vidar_core::boot::refusal::{Difference, Names, Refusal};
use vidar_core::debugger::debuggable::Debuggable;
use vidar_core::mem::addr::{Hpa, PageSize};
use vidar_core::mem::encryption::Encryption;
use vidar_core::mem::mtrr::Mtrrs;
use vidar_core::policy::features::Features;
use vidar_core::policy::msr::Row;
use vidar_core::vmm::entry::Begin;
use vidar_core::vmm::vcpu::Vcpu;

use crate::host::tables::Frames;
use crate::host::vcpu::{Common, FrameSet, Own};

/// A virtualization extension that this CPU has and that Vidar can use, with its capabilities. Two CPUs whose
/// extensions do not differ can run the same guest.
pub trait Extension: Clone + Send + Sync + 'static {
    /// The name of the extension in hypercalls.
    const VENDOR: Vendor;
    /// The names of the extension in messages.
    const NAMES: Names;
    /// The tables of MSRs for which the policy of this extension has a rule.
    const MSRS: &'static [&'static [Row]];
    /// The MSRs that the guest is also refused if another hypervisor runs below Vidar.
    const NESTED: &'static [Row];
    /// The MSRs that the boot option `guard` guards. The table comes before the others.
    const GUARDED: &'static [Row];
    /// The frames of a virtual CPU, besides those of [`Common`].
    type Frames: FrameSet;
    /// The virtual CPU of this extension.
    type Cpu: Debuggable;

    /// Reads the capabilities of the extension on this CPU.
    ///
    /// # Errors
    /// [`Refusal`] if the extension cannot be used.
    fn probe() -> Result<Self, Refusal>;

    /// Returns the first difference to `other`, the extension of another CPU, or `None` if nothing that matters
    /// differs.
    fn difference(&self, other: &Self) -> Option<Difference>;

    /// Logs the main capabilities.
    fn describe(&self);

    /// Returns the proof that a CPU can wait for a start-up IPI in the guest, or `None` if it cannot.
    fn wait_for_sipi(&self) -> Option<<Self::Cpu as Vcpu>::WaitForSipi>;

    /// Returns true if Vidar need not intercept an INIT that arrives in the guest. The CPU then waits for its start-up
    /// IPI outside of the guest, as a bare CPU does.
    fn leaves_init_to_the_cpu(&self) -> bool;

    /// Returns true if the boot CPU survives an INIT that it intercepts. Asked once that CPU has been prepared.
    fn survives_init(&self) -> bool;

    /// Returns the size of the largest page that the second stage can map.
    fn largest_page(&self) -> PageSize;

    /// Returns the MTRRs that determine the memory types of the second stage.
    fn memory_types(&self) -> Mtrrs;

    /// Returns what memory encryption does to addresses.
    fn encryption(&self) -> Encryption;

    /// Returns the features that work in the guest.
    fn features(&self) -> Features;

    /// Returns the bits of EFER that the guest may set.
    fn efer_allowed(&self) -> u64;

    /// Takes the frames of the MSR map, which all CPUs share. Returns `None` if too few are free.
    fn msr_map(frames: &mut Frames) -> Option<Hpa>;

    /// Fills the MSR map at `map` from the policy's tables.
    fn fill_msr_map(map: Hpa, tables: &[&[Row]]);

    /// Creates the virtual CPU of this CPU, ready to run a guest that begins as `begin` says.
    ///
    /// # Errors
    /// [`Refusal::Extension`] if the CPU does not work as its capabilities say.
    fn cpu(
        &self,
        common: &Common,
        own: &Own<'_, Self::Frames>,
        begin: Begin<<Self::Cpu as Vcpu>::WaitForSipi>,
    ) -> Result<Self::Cpu, Refusal>;
}
