//! The end of the guest on a CPU: a crash report, and then what the user has chosen by `on-crash`.

#![expect(unsafe_code, reason = "the state of this CPU is shown to the one that writes the report")]

use core::{fmt, iter};

use vidar_core::kernel::Kernel;
use vidar_core::mem::addr::Hva;
use vidar_core::report::exits::Exits;
use vidar_core::report::names::{Names, Room, Sink};
use vidar_core::report::others::{Others, RUN_ON};
use vidar_core::report::state::Full;
use vidar_core::vmm::check;
use vidar_core::vmm::cpu_state::CpuState;
use vidar_core::vmm::exit::Exit;
use vidar_core::vmm::machine::{Machine, RUNS_VIDAR};
use vidar_core::vmm::outcome::Stop;
use vidar_core::vmm::percpu::PerCpu;
use vidar_core::vmm::vcpu::Vcpu;

use super::stopped;
use crate::arch::{instructions, stop};
use crate::debug::{ending, log as console};

/// Ends the guest on this CPU, for the reason `stop`. After [`Stop::InitPending`] and [`Stop::Elsewhere`] the CPU
/// halts. For any other reason this function stops the other CPUs where an INIT can, writes a crash report, and then
/// halts or resets the machine, as the user has chosen.
pub fn end<V: Vcpu, T>(vcpu: &mut V, machine: &Machine<V, T>, stop: Stop, exit: &Exit) -> ! {
    let percpu = vcpu.percpu();
    let what = match stop {
        Stop::TripleFault => "triple fault",
        Stop::TaskSwitch => {
            "it made a hardware task switch, as 32-bit kernels do for a double fault, which Vidar does not support on VT-x"
        }
        Stop::Unanswered => "an exit that Vidar cannot handle; please report it with what follows",
        Stop::EntryFailed => "the CPU refused to enter it",
        Stop::InitPending => {
            log::error!(
                "an INIT has come to CPU {} that no CPU of the guest has sent by its local APIC; the CPU stays off until \
                 the machine is reset",
                percpu.index
            );
            instructions::halt_forever()
        }
        Stop::Init => unreachable!("a CPU that gets an INIT waits"),
        Stop::MachineCheck => "a machine check while machine checks are switched off (CR4.MCE)",
        Stop::Requested => "a program in the guest has asked for this report (vidarctl crash)",
        Stop::Elsewhere => "another CPU has stopped",
    };
    let snapshot = vcpu.snapshot();
    // SAFETY: this function does not return, so the snapshot stays on the stack until the CPU starts again.
    unsafe { stopped::publish(percpu, &snapshot) };
    if stop == Stop::Elsewhere {
        ending::halt()
    }
    let Some(who) = stop::others(percpu.apic_id) else { ending::halt() };
    console::take_back_for_report();
    let index = percpu.index;
    log::error!("the guest has stopped on CPU {index}: {what}\n  {exit:x?}");
    let cpus = machine.host.cpus;
    report_others(cpus, index);
    log::error!("the state of CPU {index}:\n{}", Full(&snapshot));
    if let Exit::EntryFailed { code, .. } = *exit {
        check::explain(vcpu, code, &mut |text| log::error!("{text}"));
    }
    if machine.runs_vidar(&vcpu.controls()) {
        log::error!("{RUNS_VIDAR}");
    }
    let at = snapshot.state.rip;
    let found = || stopped::states(cpus, index);
    match kernel(machine, iter::once(&snapshot.state).chain(found().map(|(_, state)| state))) {
        Some(kernel) => {
            let names = Names { kernel: &kernel, memory: machine.guest };
            report_exits(cpus, |rip| names.place(rip));
            names.write(&mut Report, (index, &snapshot.state), found(), Room::on(console::rows()));
            log::error!("CPU {index} stopped at {}: {what}", names.place(at));
        }
        None => {
            report_exits(cpus, Hva);
            // A screen may not show the first line any more.
            if cpus.len() > 1 {
                log::error!("CPU {index} stopped at {at:#x}: {what}");
            }
        }
    }
    if stop == Stop::TripleFault
        && let Some(protection) = machine.host.guard.as_ref().and_then(|refusals| refusals.last_at(at))
    {
        // Linux has no handlers for exceptions where it hands the machine over to another kernel or to an image of
        // itself.
        log::error!(
            "there the guard has refused to change {}: kexec, kdump and resuming from hibernation need guard=off",
            protection.name()
        );
    }
    ending::end(who)
}

/// Reports the last exits of `cpus`, if there is a trace of them. A screen has no room for them.
fn report_exits<D: fmt::Display>(cpus: &[&PerCpu], place: impl Fn(u64) -> D + Copy) {
    console::show_on_screen(false);
    for exits in cpus.iter().filter_map(|cpu| Exits::of(cpu, place)) {
        log::error!("{exits}");
    }
    console::show_on_screen(true);
}

/// The log, as the report on a kernel writes to it.
struct Report;

impl Sink for Report {
    fn write(&mut self, record: fmt::Arguments<'_>) {
        log::error!("{record}");
    }

    fn show(&mut self, on_screen: bool) {
        console::show_on_screen(on_screen);
    }

    fn begin_main(&mut self) {
        console::begin_main();
    }
}

/// Returns the Linux that runs on a CPU in one of these states. Only the first two are asked, since each answer may
/// take a search through all of the guest's memory.
fn kernel<'a, V: Vcpu, T>(
    machine: &Machine<V, T>,
    states: impl Iterator<Item = &'a CpuState>,
) -> Option<Kernel> {
    states.take(2).find_map(|state| Kernel::find_running(machine.guest, &machine.ram, &state.controls))
}

/// Reports what is known of the other CPUs of `cpus`. This CPU has the number `own`.
fn report_others(cpus: &[&PerCpu], own: u32) {
    if cpus.len() == 1 {
        return;
    }
    if stop::reaches_others() {
        stopped::wait(cpus, own);
        log::error!("{}", Others(stopped::others(cpus, own)));
    } else {
        log::error!("{RUN_ON}");
    }
}
