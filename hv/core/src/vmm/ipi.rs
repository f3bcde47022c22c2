//! INITs and start-up IPIs with emulated start-up. The guest's local APICs do not send them: Vidar notes them in the
//! state of the CPU that they are for, and calls that CPU out of the guest.

use super::percpu::PerCpu;
use super::vcpu::Vcpu;
use crate::x86::icr::{Destination, Icr, Message};

/// Acts on a write of `icr` to the interrupt command register of `vcpu`. Returns true if the guest's own APIC is to
/// send the message, which holds for all but INITs and start-up IPIs. These change the CPUs among `cpus` that the
/// destination names, and no others.
pub fn write(vcpu: &mut impl Vcpu, cpus: &[&PerCpu], icr: Icr) -> bool {
    let sender = vcpu.percpu().index;
    let targets =
        cpus.iter().filter(|target| target.address().answers(icr.destination, target.index == sender));
    match icr.message {
        Message::Other | Message::Nmi => return true,
        Message::Deassert => {}
        Message::Init => targets.filter(|target| target.startup.init()).for_each(|target| call(vcpu, target)),
        Message::Startup(vector) => {
            targets.filter(|target| target.startup.startup(vector)).for_each(|target| call(vcpu, target));
        }
    }
    false
}

/// Has the CPU `target` exit from the guest. It takes the NMI for an INIT. A real INIT would not do: QEMU and KVM reset
/// a CPU of AMD-V by it, and Bochs drops one that comes while Vidar runs.
fn call(vcpu: &mut impl Vcpu, target: &PerCpu) {
    vcpu.send(Message::Nmi, Destination::Physical(target.apic_id));
}
