//! What the boot option `guard` does: it asks [`policy::guard`](crate::policy::guard) about a write, notes what is pinned,
//! and counts and reports what is refused.

use vidar_abi::Protection;

use super::machine::Machine;
use super::refusals::Report;
use super::vcpu::Vcpu;
use crate::policy::control::Controls;
use crate::policy::guard::Guard;
use crate::x86::msr::Fault;

/// Asks the guard about a write of the guest that changes the control registers to `new`, and notes what it pins.
///
/// # Errors
/// Returns [`Fault`] if the guard refuses the write, which then raises #GP.
pub fn controls<V: Vcpu, T>(vcpu: &mut V, machine: &Machine<V, T>, new: &Controls) -> Result<(), Fault> {
    if machine.guard == Guard::Off {
        return Ok(());
    }
    let old = vcpu.controls();
    match vcpu.pins().write(&old, new) {
        Ok(pins) => {
            *vcpu.pins() = pins;
            Ok(())
        }
        Err(protection) => Err(refuse(vcpu, machine, protection)),
    }
}

/// Counts and reports a write that the guard refuses.
#[cold]
fn refuse<V: Vcpu, T>(vcpu: &V, machine: &Machine<V, T>, protection: Protection) -> Fault {
    let (rip, cpu, name) = (vcpu.rip(), vcpu.percpu().index, protection.name());
    let report = machine.refusals.count(protection, rip);
    if report != Report::Counted {
        log::warn!("CPU {cpu} has tried to change {name} at {rip:#x}: the guard has refused it with #GP");
    }
    if report == Report::Last {
        log::warn!("the guard reports no further places, and counts what it refuses there");
    }
    Fault
}
