//! INITs and start-up IPIs with emulated start-up. The guest's local APICs do not send them: Vidar sends the INIT
//! itself, and a start-up IPI with the vector of its own trampoline.

use super::percpu::PerCpu;
use super::processor::Processor;
use super::vcpu::Vcpu;
use crate::x86::icr::{Destination, Icr, Message};

/// The most start-up IPIs that are sent to a CPU until it comes up. One is lost if the CPU is still taking its INIT.
const ATTEMPTS: u32 = 50;
/// How often Vidar checks whether the CPU has come up before it sends the next: some ten microseconds.
const PATIENCE: u32 = 2000;

/// Acts on a write of `icr` to the interrupt command register of `vcpu`. Returns true if the guest's own APIC is to
/// send the message, which holds for all but INITs and start-up IPIs. Vidar sends these to the CPUs among `cpus` that
/// the destination names, and to no others.
pub fn write(vcpu: &mut impl Vcpu, cpus: &[&PerCpu], icr: Icr, trampoline: Option<u8>) -> bool {
    let sender = vcpu.percpu().index;
    let targets =
        cpus.iter().filter(|target| target.address().answers(icr.destination, target.index == sender));
    match icr.message {
        Message::Other | Message::Nmi => return true,
        Message::Deassert => {}
        Message::Init => targets.for_each(|target| init(vcpu, target)),
        Message::Startup(vector) => {
            if let Some(trampoline) = trampoline {
                targets.for_each(|target| startup(vcpu, target, vector, trampoline));
            }
        }
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
