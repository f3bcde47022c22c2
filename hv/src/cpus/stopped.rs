//! The states of CPUs that have stopped for good. The CPU that writes the report reads those of the others.

#![expect(unsafe_code, reason = "states on the stacks of other CPUs are read")]

use vidar_core::report::others::Found;
use vidar_core::vmm::cpu_state::CpuState;
use vidar_core::vmm::crash::Snapshot;
use vidar_core::vmm::percpu::PerCpu;

use crate::arch::stop;

/// How many times the other CPUs are looked at before one that has not answered counts as silent. An answer takes an
/// exit, which is some microseconds.
const PATIENCE: u32 = 4_000_000;
/// After how many looks a CPU that has not answered is told again. An INIT waits while the CPU executes Vidar's code,
/// but Bochs drops it then.
const AGAIN: u32 = 100_000;

/// Lets the CPU that writes the report find the state of this CPU, whose block is `percpu`.
///
/// # Safety
/// The snapshot stays where it is, unchanged, until this CPU starts again and calls [`restart`].
pub unsafe fn publish(percpu: &PerCpu, snapshot: &Snapshot) {
    percpu.set_stopped(snapshot);
}

/// Withdraws the state of this CPU, which starts again, and whose stack is about to be used again.
pub fn restart(percpu: &PerCpu) {
    percpu.set_stopped(core::ptr::null());
}

/// Waits until each of `cpus` but the one with the number `own` has stopped or waits for a start-up IPI, or until the
/// time for it is up. The others must have been told to stop.
pub fn wait(cpus: &[&PerCpu], own: u32) {
    let missing = |cpu: &&PerCpu| cpu.index != own && cpu.stopped().is_null() && !cpu.startup.is_waiting();
    for look in 1..=PATIENCE {
        if !cpus.iter().any(missing) {
            break;
        }
        if look % AGAIN == 0 {
            cpus.iter().filter(|cpu| missing(cpu)).for_each(|cpu| stop::again(cpu.apic_id));
        }
        core::hint::spin_loop();
    }
}

/// Returns what is known of each of `cpus` but the one with the number `own`.
pub fn others<'a>(cpus: &'a [&PerCpu], own: u32) -> impl Iterator<Item = (u32, Found<'a>)> + Clone {
    cpus.iter().filter(move |cpu| cpu.index != own).map(|cpu| {
        // SAFETY: `publish` has stored the address of a state that stays as it is while its CPU is stopped, and no CPU
        // that the report's CPU has stopped starts again.
        let found = match unsafe { cpu.stopped().as_ref() } {
            Some(snapshot) => Found::Stopped(snapshot),
            None if cpu.startup.is_waiting() => Found::Waits,
            None => Found::Silent,
        };
        (cpu.index, found)
    })
}

/// Returns the states of those of `cpus` that have stopped, but for the one with the number `own`, if this CPU has
/// stopped them.
pub fn states<'a>(cpus: &'a [&PerCpu], own: u32) -> impl Iterator<Item = (u32, &'a CpuState)> + Clone {
    let reached = stop::reaches_others();
    others(cpus, own).filter(move |_| reached).filter_map(|(cpu, found)| match found {
        Found::Stopped(snapshot) => Some((cpu, &snapshot.state)),
        Found::Waits | Found::Silent => None,
    })
}
