//! The kernel that the guest runs, for the guard: it is found once, and then asked for names and call chains.

use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};

use spin::Once;

use super::guarded::target;
use super::name::SHOWN;
use super::running::Kernel;
use crate::policy::control::Controls;
use crate::vmm::cpu_state::CpuState;
use crate::vmm::guard::kernel::{Guest, GuestKernel};
use crate::vmm::guard::target::Target;

/// The kernel that was found first. It is kept, since a search may take long: it goes through all of the guest's
/// memory, and the guest decides how often it is refused something.
#[derive(Debug, Default)]
pub struct KnownKernel {
    kernel: Once<Kernel>,
    /// How often the known kernel, if there is one, was not that of the CPU.
    unknown: AtomicU64,
}

impl KnownKernel {
    /// Returns the known kernel if a CPU with these control registers runs it.
    fn known(&self, guest: Guest<'_>, controls: &Controls) -> Option<Kernel> {
        self.kernel.get().filter(|kernel| kernel.runs(guest.memory, controls)).copied()
    }

    /// Finds the kernel that runs on a CPU with these control registers, and keeps it if it is the first.
    fn find_running(&self, guest: Guest<'_>, controls: &Controls) -> Option<Kernel> {
        self.known(guest, controls).or_else(|| {
            let found = Kernel::find_running(guest.memory, guest.ram, controls)?;
            self.kernel.call_once(|| found);
            Some(found)
        })
    }
}

impl GuestKernel for KnownKernel {
    #[cold]
    fn find(&self, guest: Guest<'_>, state: &CpuState) -> Option<Target> {
        target(&self.find_running(guest, &state.controls)?, guest, state)
    }

    /// A search that fails is repeated more and more seldom: a kernel that has just started can be found only later,
    /// and in other memory there is none.
    #[cold]
    fn prepare(&self, guest: Guest<'_>, controls: &Controls) {
        if self.known(guest, controls).is_none() {
            let before = self.unknown.fetch_add(1, Ordering::Relaxed);
            if before.wrapping_add(1).is_power_of_two() {
                self.find_running(guest, controls);
            }
        }
    }

    #[cold]
    fn write_name(
        &self,
        guest: Guest<'_>,
        controls: &Controls,
        address: u64,
        f: &mut fmt::Formatter<'_>,
    ) -> Option<fmt::Result> {
        let (name, distance) = self.known(guest, controls)?.symbol(guest.memory, address)?;
        Some(write!(f, "{name:.SHOWN$}+{distance:#x}"))
    }

    #[cold]
    fn chain(&self, guest: Guest<'_>, state: &CpuState, addresses: &mut [u64]) {
        let Some(kernel) = self.known(guest, &state.controls) else { return };
        let mut slots = addresses.iter_mut();
        kernel.chain(guest.memory, state, &mut |frame| {
            if let Some(slot) = slots.next() {
                *slot = frame.within();
            }
        });
    }
}
