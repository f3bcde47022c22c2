//! Names the places in the guest's code where the guard has refused something, by the symbols of the running kernel.

use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};

use spin::Once;

use super::names::NAME;
use crate::kernel::Kernel;
use crate::mem::ranges::RangeSet;
use crate::mem::walk::ReadGuest;
use crate::policy::control::Controls;
use crate::vmm::place::NamePlaces;

/// Names the places of the kernel that runs in this memory. The kernel that is found first is kept, since a search may
/// take long: it goes through all of the guest's memory, and the guest decides how often it is refused something.
pub struct Places<'a, M> {
    /// The guest's memory.
    memory: &'a M,
    /// The guest's RAM.
    ram: RangeSet,
    kernel: Once<Kernel>,
    /// How often the known kernel, if there is one, was not that of the CPU.
    unknown: AtomicU64,
}

impl<'a, M: ReadGuest> Places<'a, M> {
    /// Returns the names of the kernel that runs in this memory, of which `ram` is RAM.
    pub fn new(memory: &'a M, ram: RangeSet) -> Self {
        Self { memory, ram, kernel: Once::new(), unknown: AtomicU64::new(0) }
    }

    /// Returns the kernel that runs on a CPU with these control registers. A search that fails is repeated more and
    /// more seldom: a kernel that has just started can be found only later, and in other memory there is none.
    fn kernel(&self, controls: &Controls) -> Option<Kernel> {
        if let Some(kernel) = self.kernel.get().filter(|kernel| kernel.runs(self.memory, controls)) {
            return Some(*kernel);
        }
        let before = self.unknown.fetch_add(1, Ordering::Relaxed);
        if !before.wrapping_add(1).is_power_of_two() {
            return None;
        }
        let found = Kernel::find_running(self.memory, &self.ram, controls)?;
        self.kernel.call_once(|| found);
        Some(found)
    }
}

impl<M: ReadGuest> NamePlaces for Places<'_, M> {
    #[cold]
    fn name(&self, controls: &Controls, rip: u64, then: &mut dyn FnMut(fmt::Arguments<'_>)) {
        let symbol = self.kernel(controls).and_then(|kernel| kernel.symbol(self.memory, rip));
        match symbol {
            Some((name, distance)) => then(format_args!("{name:.NAME$}+{distance:#x} ({rip:#x})")),
            None => then(format_args!("{rip:#x}")),
        }
    }
}
