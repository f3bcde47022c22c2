//! Messages that start CPUs, where the guest's local APICs are not let to send them: Vidar sends INIT itself, and a
//! start-up IPI that leads through its own trampoline.

use super::percpu::PerCpu;
use super::processor::Processor;
use crate::x86::icr::{Destination, Icr, Message, Mode};

/// How often a start-up IPI is sent to a CPU that does not come up. One is lost if the CPU is still taking its INIT.
const ATTEMPTS: u32 = 50;
/// Looks at it between two of them: some ten microseconds.
const PATIENCE: u32 = 2000;

/// What the guest's write to the interrupt command register of `sender` comes to. Whether its own APIC is to send the
/// message: all that start no CPU. A CPU that is not among `cpus` gets none of the others.
pub fn write(
    cpu: &mut impl Processor,
    cpus: &[&PerCpu],
    sender: &PerCpu,
    mode: Mode,
    icr: Icr,
    trampoline: u8,
) -> bool {
    let targets = cpus
        .iter()
        .filter(|target| target.address().answers(icr.destination, mode, target.index == sender.index));
    match icr.message {
        Message::Other => return true,
        Message::Deassert => {}
        Message::Init => targets.for_each(|target| init(cpu, target)),
        Message::Startup(vector) => targets.for_each(|target| startup(cpu, target, vector, trampoline)),
    }
    false
}

fn init(cpu: &mut impl Processor, target: &PerCpu) {
    if target.is_boot_cpu() || target.startup.init() {
        cpu.send(Message::Init, Destination::Physical(target.apic_id));
    }
}

fn startup(cpu: &mut impl Processor, target: &PerCpu, vector: u8, trampoline: u8) {
    if target.is_boot_cpu() || !target.startup.startup(vector) {
        return;
    }
    for _ in 0..ATTEMPTS {
        cpu.send(Message::Startup(trampoline), Destination::Physical(target.apic_id));
        for _ in 0..PATIENCE {
            if !target.startup.is_starting() {
                return;
            }
            core::hint::spin_loop();
        }
    }
}
