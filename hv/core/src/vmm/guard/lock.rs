//! Locking memory by a hypercall on each CPU, for `guard=data` and `guard=audit`, and what happens at a write to it.

use core::ops::Range;

use vidar_abi::{Protection, Status};

use super::names::Names;
use super::refused;
use super::target::Target;
use crate::mem::addr::{Gpa, Hpa, PAGE_SIZE};
use crate::mem::locks::Lock;
use crate::mem::stage2::TableMemory;
use crate::policy::guard::Guard;
use crate::vmm::cpu_state::CpuState;
use crate::vmm::machine::Machine;
use crate::vmm::outcome::Outcome;
use crate::vmm::vcpu::Vcpu;
use crate::x86::registers::Register;

/// Locks what the boot option says, unless it is locked already, and has this CPU forget what it could write to. The
/// results go to the registers that the ABI names.
#[cold]
pub fn lock<V: Vcpu, T: TableMemory>(vcpu: &mut V, machine: &Machine<V, T>, state: &CpuState) -> Status {
    if machine.guard < Guard::Data {
        return Status::Off;
    }
    let locked = &machine.locked;
    let taken = locked.target.try_call_once(|| {
        let target = machine.kernel.find(machine.guest(), state).ok_or(Status::NotFound)?;
        let locks = target.locks(machine.guard >= Guard::Audit);
        let mut memory = machine.memory.lock();
        let moves =
            |range: &Range<Hpa>| memory.identity().moved.as_ref().is_some_and(|moved| moved.overlaps(range));
        if locks.places().any(|range| !range.is_empty() && (machine.keeps(&range) || moves(&range))) {
            return Err(Status::NotFound);
        }
        let tables = memory.lock(locks).map_err(|_| Status::NoMemory)?;
        drop(memory);
        log::info!("the guard takes {} KiB for page tables", (tables as u64 * PAGE_SIZE) >> 10);
        locked.changes();
        Ok(target)
    });
    if let Err(status) = taken {
        return status;
    }
    let change = locked.change();
    let before = locked.held_by(machine.host.cpus);
    vcpu.flush_second_stage();
    vcpu.percpu().flushed.after(change);
    let (held, all) = (locked.held_by(machine.host.cpus), machine.host.cpus.len());
    if before < all && held == all {
        log::info!("the guard has locked the read-only data and the IDT of the guest's kernel");
    }
    vcpu.registers().set(Register::Rbx, held as u64);
    vcpu.registers().set(Register::Rcx, all as u64);
    Status::Ok
}

/// Returns a row of the table in the registers that the ABI names, and for the first row has this CPU watch all code
/// again.
#[cold]
pub fn audit<V: Vcpu, T: TableMemory>(vcpu: &mut V, machine: &Machine<V, T>) -> Status {
    let index = vcpu.registers().get(Register::Rbx);
    if machine.guard < Guard::Audit {
        return Status::Off;
    }
    let Some(target) = machine.locked.target.get() else { return Status::NotFound };
    let row = machine.locked.audit.lock().row(index);
    let Some((row, lost)) = row else { return Status::BadArgument };
    if index == 0 {
        // Nothing is divided any more, so no frame is needed.
        if machine.memory.lock().lock_again().is_err() {
            return Status::NoMemory;
        }
        vcpu.flush_second_stage();
    }
    let registers = vcpu.registers();
    registers.set(Register::Rbx, row.count);
    registers.set(Register::Rcx, target.address_in_image(row.last));
    registers.set(Register::Rdx, lost);
    Register::UPPER.into_iter().zip(row.chain).for_each(|(register, word)| registers.set(register, word));
    Status::Ok
}

/// Decides about an access to `address` that the second stage has denied. Returns `None` if nothing is locked there:
/// the CPU has denied it by a cached translation.
#[cold]
pub fn denied<V: Vcpu, T: TableMemory>(
    vcpu: &mut V,
    machine: &Machine<V, T>,
    address: Gpa,
) -> Option<Outcome> {
    let target = machine.locked.target.get()?;
    // Locked memory can be read and executed, so the access was a write, or that of a page walk which sets a bit.
    let lock = machine.memory.lock().denies_write(address)?;
    Some(match lock {
        Lock::Text => {
            let (cpu, state) = (vcpu.percpu().index, vcpu.snapshot().state);
            let names = Names::new(machine.kernel, machine.guest(), &state.controls);
            machine.locked.audit.lock().note(cpu, &state, names, target, address);
            machine.memory.lock().open(address);
            vcpu.flush_second_stage();
            Outcome::Resume
        }
        Lock::Data => refuse(vcpu, machine, target, address),
    })
}

/// Refuses a write with #GP. A #PF would not do: the guest's own page tables allow the write, or the CPU would not have
/// asked the second stage, so Linux takes such a #PF for one that comes of a stale TLB, and tries again for ever. Linux
/// 6.1, arch/x86/mm/fault.c, `spurious_kernel_fault`.
fn refuse<V: Vcpu, T>(vcpu: &mut V, machine: &Machine<V, T>, target: &Target, address: Gpa) -> Outcome {
    let protection = if target.idt.contains(&address) { Protection::Idt } else { Protection::Data };
    refused(vcpu, machine, "write to the kernel's", protection);
    Outcome::refused_access(vcpu.interrupted())
}
