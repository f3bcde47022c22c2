//! Running the guest on a CPU to its end, and watching it as the boot options want.

use vidar_core::mem::stage2::TableMemory;
use vidar_core::vmm::check::Check;
use vidar_core::vmm::exit::Exit;
use vidar_core::vmm::machine::Machine;
use vidar_core::vmm::observer::{Observer, Unobserved, Wanted};
use vidar_core::vmm::outcome::Stop;
use vidar_core::vmm::run::run;
use vidar_core::vmm::vcpu::Vcpu;

use super::end::end;

/// The observer of one CPU: all that the boot options want.
struct Inside {
    check: Option<Check>,
}

impl Inside {
    /// Returns an observer of all that is `wanted`.
    fn new(wanted: Wanted) -> Self {
        Self { check: wanted.check.then(Check::default) }
    }
}

impl<V: Vcpu> Observer<V> for Inside {
    fn before_entry(&mut self, vcpu: &mut V) {
        if let Some(check) = &mut self.check {
            check.ask(vcpu);
        }
    }
}

/// Runs the guest on this CPU until it cannot go on, and watches it.
#[cold]
#[inline(never)] // so that the usual loop is compiled as if it were the only one
fn run_observed<V: Vcpu, T: TableMemory>(
    vcpu: &mut V,
    machine: &Machine<V, T>,
) -> (Stop, Exit<V::ControlWrite>) {
    run(vcpu, machine, &mut Inside::new(machine.wanted))
}

/// Runs the guest on this CPU until it cannot go on, and ends it then.
pub fn run_to_end<V: Vcpu, T: TableMemory>(vcpu: &mut V, machine: &Machine<V, T>) -> ! {
    let (stop, exit) =
        if machine.wanted.any() { run_observed(vcpu, machine) } else { run(vcpu, machine, &mut Unobserved) };
    end(vcpu, machine, stop, &exit)
}
