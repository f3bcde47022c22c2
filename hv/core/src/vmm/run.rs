//! The loop: run the guest, answer its exit, apply the answer. Every exit takes this way.

use core::sync::atomic::Ordering;

use super::exit::{Exit, Violation};
use super::machine::{Machine, RUNS_VIDAR, Startup};
use super::memory::Touch;
use super::outcome::{Exception, Outcome, REFUSE, Stop};
use super::vcpu::Vcpu;
use super::{apic, hypercall, msr};
use crate::mem::addr::{Gpa, PAGE_SIZE};
use crate::mem::stage2::{Format, TableMemory};
use crate::policy::control::{self, CR4_MCE, CR4_OSXSAVE, ControlWrite, Update};
use crate::policy::{cpuid, xcr0};
use crate::x86::msr::EFER_LMA;
use crate::x86::registers::Register;

/// Runs the guest on `vcpu` until it cannot go on.
pub fn run<V: Vcpu, F: Format, T: TableMemory>(vcpu: &mut V, machine: &Machine<F, T>) -> (Stop, Exit) {
    loop {
        let exit = vcpu.run();
        vcpu.percpu().counters.count(exit.kind());
        let outcome = answer(vcpu, machine, &exit);
        // Looked at here, where it is known for the exits that come often.
        if let Outcome::Stop(stop) = outcome {
            return (stop, exit);
        }
        apply(vcpu, outcome);
    }
}

/// Does what the outcome says: the only place that moves the guest's RIP or raises something in it.
fn apply<V: Vcpu>(vcpu: &mut V, outcome: Outcome) {
    match outcome {
        Outcome::Advance => vcpu.advance(),
        Outcome::Resume | Outcome::Stop(_) => {}
        Outcome::Inject(exception) => vcpu.inject(exception),
        Outcome::Skip(length) => vcpu.skip(length),
        Outcome::Init { waits } => vcpu.init(waits),
        Outcome::Startup(vector) => vcpu.startup(vector),
    }
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
            let result = cpuid::answer(
                leaf,
                subleaf,
                &machine.cpuid,
                native,
                || vcpu.cr4(),
                || !vcpu.percpu().xd_disabled.load(Ordering::Relaxed),
            );
            let registers = vcpu.registers();
            registers.set(Register::Rax, result.eax.into());
            registers.set(Register::Rbx, result.ebx.into());
            registers.set(Register::Rcx, result.ecx.into());
            registers.set(Register::Rdx, result.edx.into());
            Outcome::Advance
        }
        Exit::Hypercall => {
            hypercall::answer(vcpu.registers(), &machine.host);
            Outcome::Advance
        }
        Exit::Rdmsr => msr::read(vcpu, machine),
        Exit::RdmsrImmediate(operands) => msr::read_immediate(vcpu, machine, operands),
        Exit::Wrmsr => msr::write(vcpu, machine),
        Exit::WrmsrImmediate(operands) => msr::write_immediate(vcpu, machine, operands),
        Exit::ControlWrite(write) => control_write(vcpu, machine, write),
        Exit::Xsetbv => xsetbv(vcpu),
        Exit::Invd => {
            vcpu.wbinvd(); // INVD would lose Vidar's own dirty lines
            Outcome::Advance
        }
        Exit::SecondStage(violation) => second_stage(vcpu, machine, violation),
        Exit::Virtualization | Exit::Undefined => Outcome::Inject(Exception::InvalidOpcode),
        Exit::Init => init(vcpu, machine),
        Exit::Sipi(vector) => Outcome::Startup(vector),
        Exit::Changed => Outcome::Resume,
        // Kept events are delivered by `run`.
        Exit::Nmi | Exit::Window => Outcome::Resume,
        // With CR4.MCE at 0 a CPU shuts down: Intel SDM Vol. 3A, 2.5 "Control Registers", and AMD APM Vol. 2, 9.4 "Initializing
        // the Machine-Check Mechanism".
        Exit::MachineCheck if vcpu.cr4() & CR4_MCE == 0 => Outcome::Stop(Stop::MachineCheck),
        Exit::MachineCheck => Outcome::Inject(Exception::MachineCheck),
        Exit::TripleFault => Outcome::Stop(Stop::TripleFault),
        Exit::TaskSwitch(_) => Outcome::Stop(Stop::TaskSwitch),
        Exit::EntryFailed { .. } => Outcome::Stop(Stop::EntryFailed),
        Exit::Unknown { .. } => Outcome::Stop(Stop::Unanswered),
    }
}

/// INIT: the boot CPU begins at the reset vector, any other waits for a start-up IPI.
#[cold]
fn init<V: Vcpu, F, T>(vcpu: &V, machine: &Machine<F, T>) -> Outcome {
    if vcpu.stop_is_wanted() {
        return Outcome::Stop(Stop::Elsewhere);
    }
    match machine.startup {
        _ if vcpu.percpu().is_boot_cpu() => Outcome::Init { waits: false },
        Startup::Hardware => Outcome::Init { waits: true },
        Startup::Landing | Startup::Emulated { .. } => Outcome::Stop(Stop::Init),
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
    // Intel SDM Vol. 3A, 10.8.5 "Initializing IA-32e Mode". VM entry refuses that state as well.
    let activates_long_mode = controls.efer & !old.efer & EFER_LMA != 0;
    if activates_long_mode && vcpu.task_is_16_bit() {
        return REFUSE;
    }
    if reload_pdptes {
        let table = Gpa(controls.cr3 & 0xffff_ffe0);
        // The CPU reads them wherever they are, and so does Vidar. There is no address below 4 GiB that it cannot read.
        let entries = [0, 1, 2, 3].map(|index| machine.guest.word(table + index * 8).unwrap_or(0));
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
    // CPUs look at CR4 and at the privilege level before they exit. On AMD-V, QEMU 10.0 looks at neither, and Bochs not at the latter.
    // Vidar's own CR4 has the bit. Intel SDM Vol. 3C, 26.1.1 "Relative Priority of Faults and VM Exits"; AMD APM Vol. 2, 15.9
    // "Instruction Intercepts".
    if vcpu.cr4() & CR4_OSXSAVE == 0 {
        return Outcome::Inject(Exception::InvalidOpcode);
    }
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
    if violation.mapped && machine.watched == Some(violation.address.align_down(PAGE_SIZE)) {
        return apic::write(vcpu, machine, violation.address);
    }
    if violation.mapped {
        // Every other page is mapped with all rights. So the CPU denied the access by what it remembered of the tables
        // before another CPU changed them.
        vcpu.flush_second_stage();
        return Outcome::Resume;
    }
    let (touch, flush) = machine.memory.lock().touch(violation.address);
    if flush {
        vcpu.flush_second_stage();
    }
    match touch {
        Touch::Mapped => {}
        Touch::Hidden => report_touch(vcpu, machine, violation.address),
        Touch::Filled => {
            if !machine.fill_reported.swap(true, Ordering::Relaxed) {
                let address = violation.address;
                log::warn!(
                    "no memory is left for more page tables: from now on the guest finds nothing at {address} and at other addresses \
                     that it has not touched yet"
                );
            }
        }
        // A CPU has four levels of nested paging, though its physical addresses may have more bits. One that has no memory
        // there reads ones or raises an exception, as the chip set has it; with this exception the guest finds out.
        Touch::Beyond => return REFUSE,
    }
    Outcome::Resume
}

/// Says once that the guest touched Vidar's memory.
fn report_touch<V: Vcpu, F, T>(vcpu: &V, machine: &Machine<F, T>, address: Gpa) {
    // The page that CPUs are started from is among what Linux looks through for firmware's tables.
    let region = machine.host.kept.first();
    if !region.is_some_and(|region| region.contains(&address.identity()))
        || machine.touch_reported.swap(true, Ordering::Relaxed)
    {
        return;
    }
    log::warn!("the guest touched Vidar's memory at {address}; the guest sees another page there");
    if machine.runs_vidar(&vcpu.controls()) {
        log::error!("{RUNS_VIDAR}");
    }
}
