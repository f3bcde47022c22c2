//! Running the guest on a CPU to its end, and watching it as the boot options want.

use vidar_core::debugger::debuggable::Debuggable;
use vidar_core::debugger::observer::Debugger;
use vidar_core::mem::stage2::TableMemory;
use vidar_core::trace::ring::Ring;
use vidar_core::vmm::check::Check;
use vidar_core::vmm::exit::Exit;
use vidar_core::vmm::machine::{Machine, Startup};
use vidar_core::vmm::observer::{Observer, Unobserved, Wanted};
use vidar_core::vmm::outcome::{Outcome, Stop};
use vidar_core::vmm::percpu::PerCpu;
use vidar_core::vmm::run::run;
use vidar_core::vmm::tracer::Tracer;
use vidar_core::vmm::waiting::wait;

use super::end::end;
use crate::debugger::start;

/// The observer of one CPU: all that the boot options want.
struct Inside {
    check: Option<Check>,
    debugger: Option<Debugger>,
    trace: Option<Tracer>,
}

impl Inside {
    /// Returns an observer of all that is `wanted` on the CPU with this block.
    fn new(wanted: Wanted, percpu: &PerCpu) -> Self {
        Self {
            check: wanted.check.then(Check::default),
            debugger: start::on_cpu(percpu.index),
            trace: percpu.trace.get().map(|ring| Tracer::new(ring)),
        }
    }
}

impl<V: Debuggable> Observer<V> for Inside {
    fn before_entry(&mut self, vcpu: &mut V) {
        if let Some(debugger) = &mut self.debugger {
            debugger.before_entry(vcpu);
        }
        if let Some(check) = &mut self.check {
            check.ask(vcpu, &mut |text| log::error!("{text}"));
        }
        if let Some(trace) = &mut self.trace {
            trace.before_entry(vcpu);
        }
    }

    fn after_exit(&mut self, vcpu: &mut V, exit: &Exit) -> Option<Outcome> {
        if let Some(trace) = &mut self.trace {
            trace.after_exit(vcpu, exit);
        }
        self.debugger.as_mut()?.after_exit(vcpu, exit)
    }

    fn before_stop(&mut self, vcpu: &mut V, stop: Stop, exit: &Exit) -> Option<Outcome> {
        self.debugger.as_mut()?.before_stop(vcpu, stop, exit)
    }
}

/// Runs the guest on this CPU until it cannot go on, and watches it.
#[cold]
#[inline(never)] // so that the usual loop is compiled as if it were the only one
fn run_observed<V: Debuggable, T: TableMemory>(vcpu: &mut V, machine: &Machine<V, T>) -> (Stop, Exit) {
    let percpu = vcpu.percpu();
    match (machine.wanted, percpu.trace.get()) {
        (Wanted { check: false, debugger: false, trace: true }, Some(ring)) => {
            run_traced(vcpu, machine, ring)
        }
        (wanted, _) => run(vcpu, machine, &mut Inside::new(wanted, percpu)),
    }
}

/// Runs the guest on this CPU until it cannot go on, and records its exits in `ring`, with as few instructions as it
/// can.
#[inline(never)]
fn run_traced<V: Debuggable, T: TableMemory>(
    vcpu: &mut V,
    machine: &Machine<V, T>,
    ring: &'static Ring,
) -> (Stop, Exit) {
    run(vcpu, machine, &mut Tracer::new(ring))
}

/// Runs the guest on this CPU until it cannot go on, and ends it then. With emulated start-up a further CPU waits after
/// each INIT.
pub fn run_to_end<V: Debuggable, T: TableMemory>(vcpu: &mut V, machine: &Machine<V, T>) -> ! {
    loop {
        let (stop, exit) = if machine.wanted.any() {
            run_observed(vcpu, machine)
        } else {
            run(vcpu, machine, &mut Unobserved)
        };
        match machine.startup {
            Startup::Emulated { room: Some(room) } if stop == Stop::Init => wait_in(vcpu, machine, room),
            _ => end(vcpu, machine, stop, &exit),
        }
    }
}

/// Has this CPU wait in the page with the number `room` until the guest starts it.
pub fn wait_in<V: Debuggable, T: TableMemory>(vcpu: &mut V, machine: &Machine<V, T>, room: u8) {
    if let Err((stop, exit)) = wait(vcpu, machine, room) {
        end(vcpu, machine, stop, &exit)
    }
}
