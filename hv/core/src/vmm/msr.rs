//! RDMSR and WRMSR: asks the policy, and applies what it decides. Of all MSRs only the MTRRs are known here.

use core::ops::Range;
use core::sync::atomic::Ordering;

use super::exit::Immediate;
use super::machine::Machine;
use super::outcome::{Outcome, REFUSE};
use super::vcpu::Vcpu;
use super::{apic, guard, microcode};
use crate::mem::addr::{Gpa, Hpa};
use crate::mem::mtrr::{IA32_MTRR_DEF_TYPE, Mtrrs};
use crate::mem::stage2::TableMemory;
use crate::policy::control::Controls;
use crate::policy::msr::allowed::decide;
use crate::policy::msr::{Context, Effect, Read, policy};
use crate::x86::cpuid::Leaf;
use crate::x86::msr::Fault;
use crate::x86::registers::Register;

/// E of [`IA32_MTRR_DEF_TYPE`]: the MTRRs are enabled.
const MTRRS_ENABLED: u64 = 1 << 11;

/// Emulates RDMSR of the MSR whose index is in ECX.
#[cold]
pub fn read<V: Vcpu, T>(vcpu: &mut V, machine: &Machine<V, T>) -> Outcome {
    let index = vcpu.registers().low(Register::Rcx);
    let Ok(value) = value(vcpu, machine, index) else { return REFUSE };
    vcpu.registers().set_edx_eax(value);
    Outcome::Advance
}

/// Emulates RDMSR with an immediate.
#[cold]
pub fn read_immediate<V: Vcpu, T>(vcpu: &mut V, machine: &Machine<V, T>, operands: Immediate) -> Outcome {
    let Ok(value) = value(vcpu, machine, operands.index) else { return REFUSE };
    vcpu.set_register(operands.register, value);
    Outcome::Advance
}

/// Emulates WRMSR of the MSR whose index is in ECX.
#[cold]
pub fn write<V: Vcpu, T: TableMemory>(vcpu: &mut V, machine: &Machine<V, T>) -> Outcome {
    let (index, value) = (vcpu.registers().low(Register::Rcx), vcpu.registers().edx_eax());
    apply(vcpu, machine, index, value).unwrap_or(REFUSE)
}

/// Emulates WRMSRNS with an immediate.
#[cold]
pub fn write_immediate<V: Vcpu, T: TableMemory>(
    vcpu: &mut V,
    machine: &Machine<V, T>,
    operands: Immediate,
) -> Outcome {
    let value = vcpu.registers().get(operands.register);
    apply(vcpu, machine, operands.index, value).unwrap_or(REFUSE)
}

/// Returns the value that the guest reads from the MSR `index`, or [`Fault`] if the read raises #GP.
fn value<V: Vcpu, T>(vcpu: &mut V, machine: &Machine<V, T>, index: u32) -> Result<u64, Fault> {
    match policy(machine.msrs, index).0 {
        Read::Native => vcpu.rdmsr(index),
        Read::Refuse => Err(Fault),
        Read::Without(bits) => vcpu.rdmsr(index).map(|value| value & !bits),
        Read::Handled(handler) => handler(&mut Access { vcpu, machine, index }),
    }
}

/// Applies the effect of the guest's write of `value` to the MSR `index`. Returns [`Fault`] if the write raises #GP.
fn apply<V: Vcpu, T: TableMemory>(
    vcpu: &mut V,
    machine: &Machine<V, T>,
    index: u32,
    value: u64,
) -> Result<Outcome, Fault> {
    match decide(machine.msrs, index, value, &mut Access { vcpu, machine, index })? {
        Effect::Nothing => {}
        Effect::Write(write) => vcpu.wrmsr(write)?,
        Effect::WriteGuarded(write) => guard::write_msr(vcpu, machine, write)?,
        Effect::WriteMtrr(write) => {
            vcpu.wrmsr(write)?;
            follow_mtrrs(vcpu, machine);
        }
        Effect::SetControls(controls) => {
            guard::controls(vcpu, machine, &controls)?;
            vcpu.set_controls(&controls);
        }
        Effect::DisableExecute { value, disabled } => {
            vcpu.wrmsr(value)?;
            vcpu.percpu().xd_disabled.store(disabled, Ordering::Relaxed);
            vcpu.watch_efer(disabled);
        }
        Effect::SendIcr(write) => return Ok(apic::write_msr(vcpu, machine, write)),
        Effect::LoadMicrocode { address, loader } => {
            return Ok(microcode::load(vcpu, machine, loader, address));
        }
    }
    Ok(Outcome::Advance)
}

/// Changes the memory types of the second stage to those of the MTRRs.
fn follow_mtrrs<V: Vcpu, T: TableMemory>(vcpu: &mut V, machine: &Machine<V, T>) {
    let mut memory = machine.memory.lock();
    // Several CPUs change their MTRRs one after another. Each disables its MTRRs meanwhile, with its caches disabled as
    // well (CR0.CD). The memory types without MTRRs must not apply to the other CPUs. Intel SDM Vol. 3A, 12.11.8 "MTRR
    // Considerations in MP Systems".
    let enabled = vcpu.rdmsr(IA32_MTRR_DEF_TYPE).is_ok_and(|value| value & MTRRS_ENABLED != 0);
    if memory.is_shared() && !enabled {
        return;
    }
    let mtrrs = Mtrrs::read(machine.physical_address_bits, |index| vcpu.rdmsr(index).unwrap_or(0));
    let changed = memory.follow(mtrrs);
    // Another CPU may have changed the tables before, for the same change of the MTRRs.
    if changed || memory.is_shared() {
        vcpu.flush_second_stage();
    }
}

/// The context of an access to the MSR `index`: the CPU and the machine.
struct Access<'a, V: Vcpu, T> {
    vcpu: &'a mut V,
    machine: &'a Machine<V, T>,
    index: u32,
}

impl<V: Vcpu, T> Context for Access<'_, V, T> {
    fn native(&mut self) -> Result<u64, Fault> {
        self.vcpu.rdmsr(self.index)
    }

    fn cpuid(&self, leaf: u32, subleaf: u32) -> Leaf {
        self.vcpu.cpuid(leaf, subleaf)
    }

    fn controls(&self) -> Controls {
        self.vcpu.controls()
    }

    fn efer_allowed(&self) -> u64 {
        self.machine.efer_allowed
    }

    fn execute_is_disabled(&self) -> bool {
        self.vcpu.percpu().xd_disabled.load(Ordering::Relaxed)
    }

    fn watched_apic(&self) -> Option<Gpa> {
        self.machine.watched
    }

    fn keeps(&self, range: &Range<Hpa>) -> bool {
        self.machine.keeps(range) || self.machine.locked.hold(range)
    }
}
