//! The end of the guest on a CPU: a crash report, and then what the user has chosen by `on-crash`.

use vidar_core::vmm::exit::Exit;
use vidar_core::vmm::machine::{Machine, RUNS_VIDAR};
use vidar_core::vmm::outcome::Stop;
use vidar_core::vmm::vcpu::Vcpu;

use crate::arch::{apic, stop};
use crate::debug::{ending, log as console};

/// Ends the guest on this CPU, for the reason `stop`. After [`Stop::Init`] the CPU goes back to waiting for a start-up
/// IPI, and after [`Stop::Elsewhere`] it halts. For any other reason this function stops the other CPUs where an
/// INIT can, writes a crash report, and then halts or resets the machine, as the user has chosen.
pub fn end<V: Vcpu, T>(vcpu: &mut V, machine: &Machine<V, T>, stop: Stop, exit: &Exit<V::ControlWrite>) -> ! {
    let percpu = vcpu.percpu();
    let what = match stop {
        Stop::TripleFault => "triple fault",
        Stop::TaskSwitch => {
            "it made a hardware task switch, as 32-bit kernels do for a double fault, which Vidar does not support on VT-x"
        }
        Stop::Unanswered => "an exit that Vidar cannot handle; please report it with what follows",
        Stop::EntryFailed => "the CPU refused to enter it",
        Stop::Init => {
            percpu.startup.taken_by_init();
            vcpu.leave();
            apic::init_self()
        }
        Stop::MachineCheck => "a machine check while machine checks are switched off (CR4.MCE)",
        Stop::Elsewhere => ending::halt_for_another(),
    };
    let who = stop::others(percpu.apic_id);
    console::take_back();
    let index = percpu.index;
    log::error!("the guest has stopped on CPU {index}: {what}\n  {exit:x?}\n{}", vcpu.snapshot());
    if stop == Stop::EntryFailed {
        let mut rules = 0;
        vcpu.broken_rules(&mut |rule| {
            rules += 1;
            log::error!("{rule}");
        });
        if rules == 0 {
            log::error!(
                "the state breaks no rule that Vidar knows; please report this together with the text above"
            );
        }
    }
    if machine.runs_vidar(&vcpu.controls()) {
        log::error!("{RUNS_VIDAR}");
    }
    ending::end(who)
}
