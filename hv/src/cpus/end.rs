//! The end of a guest's CPU: what it was, and what the user wants done then.

use vidar_core::vmm::exit::Exit;
use vidar_core::vmm::machine::{Machine, RUNS_VIDAR};
use vidar_core::vmm::outcome::Stop;
use vidar_core::vmm::vcpu::Vcpu;

use crate::arch::{apic, stop};
use crate::debug::{ending, log as console};

/// Reports what the guest was when it stopped, with all CPUs stopped, and does what the user wants done then.
pub fn end<V: Vcpu, F, T>(vcpu: &mut V, machine: &Machine<F, T>, stop: Stop, exit: &Exit) -> ! {
    let percpu = vcpu.percpu();
    let what = match stop {
        Stop::TripleFault => "triple fault",
        Stop::TaskSwitch => {
            "it switched tasks by hardware, as 32-bit kernels do for a double fault, and on VT-x Vidar does not do that"
        }
        Stop::Unanswered => "an exit that Vidar has no answer for; please report it with what follows",
        Stop::EntryFailed => "the CPU refused to enter it",
        Stop::Init => {
            percpu.startup.taken_by_init();
            vcpu.leave();
            apic::init_self()
        }
        Stop::MachineCheck => "a machine check while machine checks are switched off (CR4.MCE)",
        Stop::Elsewhere => ending::halt_for_another(),
    };
    stop::others(percpu.apic_id);
    console::take_back();
    let index = percpu.index;
    log::error!("the guest has stopped on CPU {index}: {what}\n  {exit:x?}\n{}", vcpu.snapshot());
    if machine.runs_vidar(&vcpu.controls()) {
        log::error!("{RUNS_VIDAR}");
    }
    ending::end("the machine")
}
