//! The loop: run the guest, answer its exit, apply the answer. Every exit takes this way.

use core::sync::atomic::Ordering;

use super::backend::Vcpu;
use super::control::{self, Update};
use super::exit::{ControlWrite, Exit, Violation};
use super::hypercall;
use super::machine::Machine;
use super::msr::{self, Read, Write};
use super::outcome::{Exception, Outcome, Stop};
use super::registers::Register;
use super::{cpuid, xcr0};
use crate::mem::addr::{Gpa, Hpa, PAGE_SIZE, overlaps};
use crate::mem::mtrr::Mtrrs;
use crate::mem::stage2::{Format, MapError, TableMemory};

const REFUSE: Outcome = Outcome::Inject(Exception::GeneralProtection);

/// Runs the guest on `vcpu` until it cannot go on.
pub fn run<V: Vcpu, F: Format, T: TableMemory>(vcpu: &mut V, machine: &Machine<F, T>) -> (Stop, Exit) {
    loop {
        let exit = vcpu.run();
        vcpu.counters().count(exit.kind());
        let outcome = answer(vcpu, machine, &exit);
        if let Some(stop) = apply(vcpu, outcome) {
            return (stop, exit);
        }
    }
}

/// Does what the outcome says: the only place that moves the guest's RIP or raises something in it.
fn apply<V: Vcpu>(vcpu: &mut V, outcome: Outcome) -> Option<Stop> {
    match outcome {
        Outcome::Advance => vcpu.advance(),
        Outcome::Resume => {}
        Outcome::Inject(exception) => vcpu.inject(exception),
        Outcome::Init => vcpu.init(),
        Outcome::Stop(stop) => return Some(stop),
    }
    None
}

/// Decides what is to be done about `exit`.
pub fn answer<V: Vcpu, F: Format, T: TableMemory>(
    vcpu: &mut V,
    machine: &Machine<F, T>,
    exit: &Exit,
) -> Outcome {
    match *exit {
        Exit::Cpuid => {
            let (leaf, subleaf) = (vcpu.registers().low(Register::Rax), vcpu.registers().low(Register::Rcx));
            let native = |leaf, subleaf| vcpu.cpuid(leaf, subleaf);
            let result = cpuid::answer(leaf, subleaf, &machine.cpuid, native, || vcpu.cr4());
            let registers = vcpu.registers();
            registers.set(Register::Rax, result.eax.into());
            registers.set(Register::Rbx, result.ebx.into());
            registers.set(Register::Rcx, result.ecx.into());
            registers.set(Register::Rdx, result.edx.into());
            Outcome::Advance
        }
        Exit::Hypercall => {
            hypercall::answer(vcpu.registers(), &machine.facts);
            Outcome::Advance
        }
        Exit::Rdmsr => rdmsr(vcpu),
        Exit::Wrmsr => wrmsr(vcpu, machine),
        Exit::ControlWrite(write) => control_write(vcpu, machine, write),
        Exit::Xsetbv => xsetbv(vcpu),
        Exit::Invd => {
            vcpu.wbinvd(); // INVD would lose Vidar's own dirty lines
            Outcome::Advance
        }
        Exit::SecondStage(violation) => second_stage(vcpu, machine, violation),
        Exit::Virtualization => Outcome::Inject(Exception::InvalidOpcode),
        Exit::Init => Outcome::Init,
        // A start-up IPI means nothing to a CPU that is not waiting for one. Kept events are delivered by `run`.
        Exit::Sipi(_) | Exit::Nmi | Exit::Window => Outcome::Resume,
        Exit::TripleFault => Outcome::Stop(Stop::TripleFault),
        Exit::EntryFailed { .. } => Outcome::Stop(Stop::EntryFailed),
        Exit::Unknown { .. } => Outcome::Stop(Stop::Unanswered),
    }
}

#[cold]
fn rdmsr<V: Vcpu>(vcpu: &mut V) -> Outcome {
    let index = vcpu.registers().low(Register::Rcx);
    let value = match msr::policy(V::MSRS, index).0 {
        Read::Native => vcpu.rdmsr(index),
        Read::FeatureControl => vcpu.rdmsr(index).map(msr::feature_control),
        Read::Efer => Ok(vcpu.controls().efer),
        Read::Refuse => return REFUSE,
    };
    match value {
        Ok(value) => {
            vcpu.registers().set_edx_eax(value);
            Outcome::Advance
        }
        Err(_) => REFUSE,
    }
}

#[cold]
fn wrmsr<V: Vcpu, F: Format, T: TableMemory>(vcpu: &mut V, machine: &Machine<F, T>) -> Outcome {
    let (index, value) = (vcpu.registers().low(Register::Rcx), vcpu.registers().edx_eax());
    match msr::policy(V::MSRS, index).1 {
        Write::Native => {}
        Write::Ignore => return Outcome::Advance,
        Write::Refuse => return REFUSE,
        Write::Without(bits) if value & bits != 0 => return REFUSE,
        Write::Without(_) => {}
        Write::ApicBase if apic_page_overlaps(value, &machine.facts.region) => return REFUSE,
        Write::ApicBase => {}
        Write::Mtrr => return write_mtrr(vcpu, machine, index, value),
        Write::Efer => {
            let Ok(controls) = control::write_efer(&vcpu.controls(), value, machine.efer_allowed) else {
                return REFUSE;
            };
            vcpu.set_controls(&controls);
            return Outcome::Advance;
        }
    }
    match vcpu.wrmsr(index, value) {
        Ok(()) => Outcome::Advance,
        Err(_) => REFUSE,
    }
}

/// Whether IA32_APIC_BASE of `value` lays the APIC's page over `region`.
fn apic_page_overlaps(value: u64, region: &core::ops::Range<Hpa>) -> bool {
    let page = Hpa(value & 0x000f_ffff_ffff_f000);
    overlaps(&(page..page + PAGE_SIZE), region)
}

#[cold]
fn write_mtrr<V: Vcpu, F: Format, T: TableMemory>(
    vcpu: &mut V,
    machine: &Machine<F, T>,
    index: u32,
    value: u64,
) -> Outcome {
    if vcpu.wrmsr(index, value).is_err() {
        return REFUSE;
    }
    let mtrrs = Mtrrs::read(machine.physical_address_bits, |index| vcpu.rdmsr(index).unwrap_or(0));
    let followed = machine.memory.lock().follow(mtrrs);
    match followed {
        Ok(changed) => {
            if changed {
                vcpu.flush_second_stage();
            }
            Outcome::Advance
        }
        Err(_) => Outcome::Stop(Stop::OutOfFrames),
    }
}

#[cold]
fn control_write<V: Vcpu, F: Format, T: TableMemory>(
    vcpu: &mut V,
    machine: &Machine<F, T>,
    write: ControlWrite,
) -> Outcome {
    let old = vcpu.controls();
    let Ok(Update { controls, reload_pdptes }) =
        control::write(&old, write, vcpu.registers(), machine.cr4_allowed)
    else {
        return REFUSE;
    };
    if reload_pdptes {
        let table = Gpa(controls.cr3 & 0xffff_ffe0);
        // What is not RAM reads as entries that are not present.
        let ram = machine.memory.lock().is_ram(table);
        let entries = if ram { (machine.read_ram)(table) } else { [0; 4] };
        if !control::valid_pdptes(&entries, machine.physical_address_bits) {
            return REFUSE;
        }
        vcpu.set_pdptes(entries);
    }
    vcpu.set_controls(&controls);
    Outcome::Advance
}

#[cold]
fn xsetbv<V: Vcpu>(vcpu: &mut V) -> Outcome {
    let (register, value) = (vcpu.registers().low(Register::Rcx), vcpu.registers().edx_eax());
    let features = vcpu.cpuid(0xd, 0);
    let supported = u64::from(features.edx) << 32 | u64::from(features.eax);
    // CPUs look at the privilege level before they exit; Bochs does not.
    if vcpu.cpl() == 0 && xcr0::valid(register, value, supported) && vcpu.xsetbv(register, value).is_ok() {
        Outcome::Advance
    } else {
        REFUSE
    }
}

#[cold]
fn second_stage<V: Vcpu, F: Format, T: TableMemory>(
    vcpu: &mut V,
    machine: &Machine<F, T>,
    violation: Violation,
) -> Outcome {
    if violation.mapped {
        // Every page is mapped with all rights, so this cannot be mended by mapping it again.
        return Outcome::Stop(Stop::Unanswered);
    }
    let touch = match machine.memory.lock().touch(violation.address) {
        Ok(touch) => touch,
        Err(MapError::OutOfTables) => return Outcome::Stop(Stop::OutOfFrames),
        Err(_) => return Outcome::Stop(Stop::OutOfReach),
    };
    if touch.flush {
        vcpu.flush_second_stage();
    }
    if touch.decoy && !machine.touch_reported.swap(true, Ordering::Relaxed) {
        let address = violation.address;
        log::warn!("the guest touched Vidar's memory at {address}; it is shown another page there");
    }
    Outcome::Resume
}
