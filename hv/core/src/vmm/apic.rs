//! The guest's writes to its local APIC, with emulated start-up. Vidar decodes each write. It does what INITs and
//! start-up IPIs would do, and makes every other write for the guest.

use super::ipi;
use super::machine::Machine;
use super::mmio::{self, Access, Instruction, Size};
use super::outcome::{Outcome, REFUSE};
use super::vcpu::Vcpu;
use crate::mem::addr::Gpa;
use crate::policy::msr::AllowedMsrWrite;
use crate::x86::icr::{Icr, Mode, register};

/// The distance of the registers in bytes. What follows the first four bytes of each is nothing.
const REGISTER: u16 = 16;

/// Emulates the instruction that writes to `address`, which is in the local APIC's page.
///
/// An instruction other than a store of 32 bits that [`mmio::decode`] knows gets #GP in the end. Software must use
/// aligned loads and stores of 32 bits: accesses of another size, by the FPU or by vector instructions, or to bytes 4
/// to 15 of a register have undefined results, and may cause unexpected exceptions. Intel SDM Vol. 3A, 11.4.1 "The
/// Local APIC Block Diagram".
#[cold]
pub fn write<V: Vcpu, T>(vcpu: &mut V, machine: &Machine<V, T>, address: Gpa) -> Outcome {
    let stores =
        |found: &Instruction| matches!(found.access, Access::Store(..)) && found.size == Size::Bits32;
    let store = match mmio::next(vcpu, machine, stores) {
        Ok(store) => store,
        Err(outcome) => return outcome,
    };
    let offset = (address.0 & 0xfff) as u16;
    // An APIC may take a store that is not aligned for one to the register in which it lies.
    if !offset.is_multiple_of(REGISTER) {
        return REFUSE;
    }
    let old = if store.reads() { vcpu.read_apic(offset) } else { 0 };
    let Some(value) = store.execute(vcpu, old.into()) else { return REFUSE };
    let value = value as u32;
    // In x2APIC mode, and while the APIC is disabled, the page is not the APIC's.
    if vcpu.apic_mode() == Some(Mode::XApic) {
        let percpu = vcpu.percpu();
        match offset {
            register::LOGICAL_DESTINATION => percpu.set_logical_destination(value),
            // As on an APIC whose ID cannot be changed. By it Vidar knows a CPU that it starts.
            register::ID => return Outcome::Skip(store.length),
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
    !machine.startup.is_emulated() || ipi::write(vcpu, machine.host.cpus, icr)
}
