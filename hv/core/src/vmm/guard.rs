//! What the boot option `guard` does: it asks [`policy::guard`](crate::policy::guard) about a write, notes what is
//! pinned, and counts and reports what is refused.
//!
//! | file | what it is for |
//! |---|---|
//! | [`lock`] | Locks the kernel's read-only data and its IDT, and decides about writes to them. |
//! | [`locked`] | What is locked, and on which CPUs the lock holds. |
//! | [`flushed`] | What a CPU may have cached of the second stage. |
//! | [`target`] | What is to be locked. |
//! | [`kernel`] | The seam to what knows the guest's kernel. |
//! | [`names`] | Names of the kernel's functions, for messages. |
//! | [`audit`] | The table of what has written to the kernel's code. |

pub mod audit;
pub mod flushed;
pub mod kernel;
pub mod lock;
pub mod locked;
pub mod names;
pub mod target;

use core::sync::atomic::Ordering;

use vidar_abi::Protection;

use self::names::Names;
use super::machine::Machine;
use super::refusals::Report;
use super::vcpu::Vcpu;
use crate::policy::control::Controls;
use crate::policy::guard::{Guard, Pins};
use crate::policy::msr::AllowedMsrWrite;
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
            pin(vcpu, pins);
            Ok(())
        }
        Err(protection) => Err(refuse(vcpu, machine, protection)),
    }
}

/// Writes an MSR as the guest wants it, if the CPU and the guard accept the value.
///
/// # Errors
/// Returns [`Fault`] if the write raises #GP.
pub fn write_msr<V: Vcpu, T>(
    vcpu: &mut V,
    machine: &Machine<V, T>,
    write: AllowedMsrWrite,
) -> Result<(), Fault> {
    let (index, value, controls) = (write.index(), write.value(), vcpu.controls());
    let allowed = vcpu.pins().allow_msr(index, value);
    allowed.map_err(|protection| refuse(vcpu, machine, protection))?;
    vcpu.wrmsr(write)?;
    let kept = vcpu.rdmsr(index)?;
    vcpu.keep_msr(index, kept);
    let pins = vcpu.pins().after_msr(&controls, index, value, kept);
    pin(vcpu, pins);
    Ok(())
}

/// Notes what is pinned on a CPU.
fn pin<V: Vcpu>(vcpu: &mut V, pins: Pins) {
    *vcpu.pins() = pins;
    vcpu.percpu().pinned.store(pins.pinned(), Ordering::Relaxed);
}

/// Counts and reports a write that the guard refuses.
#[cold]
fn refuse<V: Vcpu, T>(vcpu: &V, machine: &Machine<V, T>, protection: Protection) -> Fault {
    refused(vcpu, machine, "change", protection);
    Fault
}

/// Counts a write that is refused, and reports it if it is the first at its RIP. `tried` says what the CPU has tried to
/// do with what is protected.
fn refused<V: Vcpu, T>(vcpu: &V, machine: &Machine<V, T>, tried: &str, protection: Protection) {
    let Some(refusals) = &machine.host.guard else { return };
    let (rip, cpu, controls) = (vcpu.rip(), vcpu.percpu().index, vcpu.controls());
    let report = refusals.count(protection, rip);
    if report == Report::Counted {
        return;
    }
    let (name, place) =
        (protection.name(), Names::new(machine.kernel, machine.guest(), &controls).place(rip));
    log::warn!("CPU {cpu} has tried to {tried} {name} at {place}: the guard has refused it with #GP");
    if report == Report::Last {
        log::warn!("the guard reports no further places, and counts what it refuses there");
    }
}
