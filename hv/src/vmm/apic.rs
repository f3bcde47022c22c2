//! Writes to the local APIC's page, where Vidar starts CPUs for the guest: looked at, and then done.

use super::backend::Vcpu;
use super::ipi;
use super::machine::{Machine, Startup};
use super::outcome::{Outcome, Stop};
use super::registers::Register;
use super::store::{self, Source};
use crate::arch::icr::{Icr, Mode, register};
use crate::arch::msr;
use crate::mem::addr::Gpa;

/// What becomes of the instruction that wants to write to `address`, in the page.
#[cold]
pub fn write<V: Vcpu, F, T>(vcpu: &mut V, machine: &Machine<F, T>, address: Gpa) -> Outcome {
    let (code, controls) = (vcpu.code(), vcpu.controls());
    let Some(store) =
        store::decode(code.bytes(&controls, |address| machine.guest.word(address)), code.width(&controls))
    else {
        return Outcome::Stop(Stop::UnknownStore);
    };
    let offset = (address.0 & 0xfff) as u16;
    let value = match store.source {
        Source::Immediate(value) => value,
        // The extension keeps RSP elsewhere, and nobody sends it anywhere.
        Source::Register(Register::Rsp) | Source::Exchange(Register::Rsp) => {
            return Outcome::Stop(Stop::UnknownStore);
        }
        Source::Register(from) => vcpu.registers().low(from),
        Source::Exchange(with) => {
            let value = vcpu.registers().low(with);
            let old = vcpu.read_apic(offset);
            vcpu.registers().set(with, old.into());
            value
        }
    };
    // In x2APIC mode, or with the APIC switched off, what is at the page is no APIC.
    if vcpu.apic_mode() == Some(Mode::XApic) {
        let percpu = vcpu.percpu();
        match offset {
            register::LOGICAL_DESTINATION => percpu.set_logical_destination(value),
            register::DESTINATION_FORMAT => percpu.set_destination_format(value),
            register::ICR_LOW => {
                let destination = vcpu.read_apic(register::ICR_HIGH) >> 24;
                if !sends(vcpu, machine, Mode::XApic, Icr::decode(Mode::XApic, value, destination)) {
                    return Outcome::Skip(store.length);
                }
            }
            _ => {}
        }
    }
    vcpu.write_apic(offset, value);
    Outcome::Skip(store.length)
}

/// What becomes of a write of `value` to IA32_X2APIC_ICR.
#[cold]
pub fn write_msr<V: Vcpu, F, T>(vcpu: &mut V, machine: &Machine<F, T>, value: u64) -> Outcome {
    let refuse = super::run::REFUSE;
    // Outside of x2APIC mode the MSR is not there.
    if vcpu.apic_mode() == Some(Mode::X2Apic) {
        let Some(icr) = Icr::decode_msr(value) else { return refuse };
        if !sends(vcpu, machine, Mode::X2Apic, icr) {
            return Outcome::Advance;
        }
    }
    if vcpu.wrmsr(msr::X2APIC_ICR, value).is_ok() { Outcome::Advance } else { refuse }
}

/// Whether the APIC is to send the message itself.
fn sends<V: Vcpu, F, T>(vcpu: &mut V, machine: &Machine<F, T>, mode: Mode, icr: Icr) -> bool {
    let Startup::Emulated { trampoline } = machine.startup else { return true };
    let sender = vcpu.percpu();
    ipi::write(vcpu, machine.facts.cpus, sender, mode, icr, trampoline)
}
