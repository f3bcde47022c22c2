//! What `monitor` shows of Vidar, and the reset.

use vidar_core::debugger::debuggable::Debuggable;
use vidar_core::debugger::monitor::Surroundings;
use vidar_core::debugger::structure::Layout;
use vidar_core::mem::addr::{Gpa, Hpa, PageSize};
use vidar_core::mem::mtrr::MemoryType;
use vidar_core::mem::stage2::TableMemory;
use vidar_core::vmm::machine::Machine;
use vidar_core::vmm::percpu::PerCpu;
use vidar_core::vmm::vcpu::Vcpu;

use crate::debug::ending;

/// The machine that the guest runs on.
pub struct Around<V: Vcpu + 'static, T: 'static>(pub &'static Machine<V, T>);

impl<V: Debuggable, T: TableMemory + Send> Surroundings for Around<V, T>
where
    Machine<V, T>: Sync,
{
    fn cpus(&self) -> &'static [&'static PerCpu] {
        self.0.host.cpus
    }

    fn layout(&self) -> Layout {
        V::LAYOUT
    }

    fn log(&self, position: u64, buffer: &mut [u8]) -> (u64, usize) {
        (self.0.host.log)(position, buffer)
    }

    fn second_stage(&self, address: Gpa) -> Option<(Hpa, PageSize, MemoryType)> {
        self.0.memory.lock().translate(address)
    }

    fn reset(&self) {
        ending::reset()
    }
}
