//! The guest's writes to its local APIC, with emulated start-up. Vidar decodes each write. It sends INITs and start-up
//! IPIs itself, and does every other write for the guest.

use vidar_abi::ExitKind;

use super::doubt::Site;
use super::ipi;
use super::machine::{Machine, Startup};
use super::outcome::{Outcome, REFUSE};
use super::store::{self, Operation, Source};
use super::vcpu::Vcpu;
use crate::mem::addr::Gpa;
use crate::policy::msr::AllowedMsrWrite;
use crate::x86::icr::{Icr, Mode, register};
use crate::x86::registers::Register;

/// The offset of the page's last 32 bits.
const LAST: u16 = 0xffc;

/// Emulates the instruction that writes to `address`, which is in the local APIC's page.
///
/// An instruction that [`store::decode`] does not know is executed again, as [`doubt`](crate::vmm::doubt) describes,
/// and in the end gets #GP. Software must use aligned loads and stores of 32 bits: accesses of another size, by the FPU
/// or by vector instructions, or to bytes 4 to 15 of a register have undefined results, and may cause unexpected
/// exceptions. Intel SDM Vol. 3A, 11.4.1 "The Local APIC Block Diagram".
#[cold]
pub fn write<V: Vcpu, T>(vcpu: &mut V, machine: &Machine<V, T>, address: Gpa) -> Outcome {
    let (code, controls) = (vcpu.code(), vcpu.controls());
    let bytes = code.bytes(&controls, |address| machine.guest.word(address));
    // RSP is not among `registers`, since the VMCS or VMCB holds it. No software writes it to the APIC.
    let has_rsp =
        |source| matches!(source, Source::Register(Register::Rsp) | Source::Exchange(Register::Rsp));
    let store = store::decode(bytes, code.width(&controls)).filter(|store| !has_rsp(store.source));
    let Some(store) = store else {
        let site = Site { kind: ExitKind::SecondStage, rip: code.rip, answered: 0 };
        if !vcpu.doubt().tries_again(site) {
            return REFUSE;
        }
        vcpu.flush_second_stage();
        return Outcome::Resume;
    };
    vcpu.doubt().found(code.rip);
    let offset = (address.0 & 0xfff) as u16;
    if offset > LAST {
        return REFUSE;
    }
    let operand = match store.source {
        Source::Immediate(value) => value,
        Source::Register(register) | Source::Exchange(register) => vcpu.registers().low(register),
    };
    let reads = store.operation != Operation::Replace || matches!(store.source, Source::Exchange(_));
    let old = if reads { vcpu.read_apic(offset) } else { 0 };
    let value = store.operation.result(old, operand);
    if let Source::Exchange(with) = store.source {
        vcpu.registers().set(with, old.into());
    }
    if store.operation != Operation::Replace {
        vcpu.set_flags(store::FLAGS, store::flags(value));
    }
    // In x2APIC mode, and while the APIC is disabled, the page is not the APIC's.
    if vcpu.apic_mode() == Some(Mode::XApic) {
        let percpu = vcpu.percpu();
        match offset {
            register::LOGICAL_DESTINATION => percpu.set_logical_destination(value),
            register::DESTINATION_FORMAT => percpu.set_destination_format(value),
            register::ICR_LOW => {
                let destination = vcpu.read_apic(register::ICR_HIGH) >> 24;
                if !sends(vcpu, machine, Icr::decode(Mode::XApic, value, destination)) {
                    return Outcome::Skip(store.length);
                }
            }
            _ => {}
        }
    }
    vcpu.write_apic(offset, value);
    Outcome::Skip(store.length)
}

/// Emulates a write of IA32_X2APIC_ICR. The guest gets #GP if a reserved bit is set, or if the CPU refuses
/// the write.
#[cold]
pub fn write_msr<V: Vcpu, T>(vcpu: &mut V, machine: &Machine<V, T>, write: AllowedMsrWrite) -> Outcome {
    // Outside x2APIC mode the MSR does not exist, and the CPU refuses the write.
    if vcpu.apic_mode() == Some(Mode::X2Apic) {
        let Some(icr) = Icr::decode_msr(write.value()) else { return REFUSE };
        if !sends(vcpu, machine, icr) {
            return Outcome::Advance;
        }
    }
    if vcpu.wrmsr(write).is_ok() { Outcome::Advance } else { REFUSE }
}

/// Returns true if the CPU's own APIC is to send the message, and false if Vidar has dealt with it.
fn sends<V: Vcpu, T>(vcpu: &mut V, machine: &Machine<V, T>, icr: Icr) -> bool {
    let Startup::Emulated { trampoline } = machine.startup else { return true };
    ipi::write(vcpu, machine.host.cpus, icr, trampoline)
}
