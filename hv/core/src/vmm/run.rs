//! The loop that runs the guest, answers each exit, and applies the answer.
//!
//! The loop is compiled twice for each extension, with an observer and without one. A compiler inlines a function that
//! is called twice only if it is small. So the steps of frequent exits, here and in the backends, are `inline(always)`:
//! with calls in their places an exit takes 60 instructions more.

use core::sync::atomic::Ordering;

use super::exit::{Exit, Violation};
use super::guard::lock;
use super::machine::{Machine, RUNS_VIDAR, Startup};
use super::memory::Touch;
use super::observer::Observer;
use super::outcome::{Exception, Outcome, REFUSE, Stop};
use super::vcpu::Vcpu;
use super::{apic, guard, hypercall, io_apic, msr, remapping};
use crate::mem::addr::{Gpa, PAGE_SIZE};
use crate::mem::stage2::TableMemory;
use crate::policy::control::{self, CR4_MCE, CR4_OSXSAVE, ControlWrite, Controls};
use crate::policy::{cpuid, xcr0};
use crate::x86::cpuid::Leaf;
use crate::x86::msr::Fault;
use crate::x86::registers::Register;

/// Runs the guest on `vcpu` until it cannot go on, and tells `observer` of what happens. Returns the reason, and the
/// last exit.
pub fn run<V: Vcpu, T: TableMemory, O: Observer<V>>(
    vcpu: &mut V,
    machine: &Machine<V, T>,
    observer: &mut O,
) -> (Stop, Exit) {
    loop {
        observer.before_entry(vcpu);
        let exit = vcpu.run();
        vcpu.percpu().counters.count(exit.kind());
        let mut outcome = if O::is_answered_apart(&exit) {
            match handle_apart(vcpu, machine, observer, &exit) {
                Some(stop) => Outcome::Stop(stop),
                None => continue,
            }
        } else {
            decide(vcpu, machine, observer, &exit)
        };
        // Checked here and not in `apply`, because the compiler knows the outcome of frequent exits here.
        if let Outcome::Stop(stop) = outcome {
            match observer.before_stop(vcpu, stop, &exit) {
                Some(instead) => outcome = instead,
                None => return (stop, exit),
            }
        }
        apply(vcpu, outcome);
    }
}

/// Tells `observer` of `exit`, and returns how the guest goes on.
#[inline(always)]
fn decide<V: Vcpu, T: TableMemory, O: Observer<V>>(
    vcpu: &mut V,
    machine: &Machine<V, T>,
    observer: &mut O,
    exit: &Exit,
) -> Outcome {
    match observer.after_exit(vcpu, exit) {
        Some(outcome) => outcome,
        None => answer(vcpu, machine, exit),
    }
}

/// Does all that the loop does after `exit`, unless the guest cannot go on: then it returns the reason.
#[cold]
#[inline(never)] // see `Observer::is_answered_apart`
fn handle_apart<V: Vcpu, T: TableMemory, O: Observer<V>>(
    vcpu: &mut V,
    machine: &Machine<V, T>,
    observer: &mut O,
    exit: &Exit,
) -> Option<Stop> {
    assert!(O::is_answered_apart(exit), "the loop answers this exit"); // so its answer is not compiled here again
    match decide(vcpu, machine, observer, exit) {
        Outcome::Stop(stop) => Some(stop),
        outcome => {
            apply(vcpu, outcome);
            None
        }
    }
}

/// Applies the outcome: moves RIP, injects an exception, or resets or starts the CPU. No handler does any of these.
/// [`Vcpu::run`] injects the events that are pending for the guest.
#[inline(always)]
fn apply<V: Vcpu>(vcpu: &mut V, outcome: Outcome) {
    match outcome {
        Outcome::Advance => vcpu.advance(),
        Outcome::Resume | Outcome::Stop(_) => {}
        Outcome::Inject(exception) => vcpu.inject(exception),
        Outcome::Skip(length) => vcpu.skip(length),
        Outcome::Init => vcpu.init(),
        Outcome::Startup(vector) => vcpu.startup(vector),
    }
}

/// Handles `exit`, and returns how the guest goes on.
#[inline(always)]
pub fn answer<V: Vcpu, T: TableMemory>(vcpu: &mut V, machine: &Machine<V, T>, exit: &Exit) -> Outcome {
    match *exit {
        Exit::Cpuid => {
            let (leaf, subleaf) = (vcpu.registers().low(Register::Rax), vcpu.registers().low(Register::Rcx));
            let result = cpuid::answer(leaf, subleaf, &machine.cpuid, vcpu);
            let registers = vcpu.registers();
            registers.set(Register::Rax, result.eax.into());
            registers.set(Register::Rbx, result.ebx.into());
            registers.set(Register::Rcx, result.ecx.into());
            registers.set(Register::Rdx, result.edx.into());
            Outcome::Advance
        }
        Exit::Hypercall if hypercall::answer(vcpu.registers(), &machine.host) => Outcome::Advance,
        Exit::Hypercall => hypercall::rare(vcpu, machine),
        Exit::Rdmsr => msr::read(vcpu, machine),
        Exit::RdmsrImmediate(operands) => msr::read_immediate(vcpu, machine, operands),
        Exit::Wrmsr => msr::write(vcpu, machine),
        Exit::WrmsrImmediate(operands) => msr::write_immediate(vcpu, machine, operands),
        Exit::ControlWrite(write) => control_write(vcpu, machine, write),
        Exit::Xsetbv => xsetbv(vcpu),
        Exit::Invd => {
            vcpu.wbinvd(); // INVD would discard Vidar's own modified cache lines
            Outcome::Advance
        }
        Exit::SecondStage(violation) => second_stage(vcpu, machine, violation),
        Exit::Virtualization | Exit::Undefined => Outcome::Inject(Exception::InvalidOpcode),
        Exit::Init => init(vcpu, machine),
        Exit::Sipi(vector) => {
            machine.locked.enters(vcpu.percpu());
            Outcome::Startup(vector)
        }
        Exit::Changed => Outcome::Resume,
        // `Vcpu::run` delivers pending events.
        Exit::Nmi | Exit::Window => Outcome::Resume,
        // A CPU whose CR4.MCE is 0 shuts down: Intel SDM Vol. 3A, 2.5 "Control Registers", and AMD APM Vol. 2, 9.4
        // "Initializing the Machine-Check Mechanism".
        Exit::MachineCheck if vcpu.cr4() & CR4_MCE == 0 => Outcome::Stop(Stop::MachineCheck),
        Exit::MachineCheck => Outcome::Inject(Exception::MachineCheck),
        Exit::TripleFault => Outcome::Stop(Stop::TripleFault),
        Exit::TaskSwitch(_) => Outcome::Stop(Stop::TaskSwitch),
        Exit::EntryFailed { .. } => Outcome::Stop(Stop::EntryFailed),
        Exit::Unknown { .. } => Outcome::Stop(Stop::Unanswered),
    }
}

impl<V: Vcpu> cpuid::Context for V {
    fn native(&self, leaf: u32, subleaf: u32) -> Leaf {
        self.cpuid(leaf, subleaf)
    }

    fn cr4(&self) -> u64 {
        Vcpu::cr4(self)
    }

    fn no_execute(&self) -> bool {
        !self.percpu().xd_disabled.load(Ordering::Relaxed)
    }
}

/// Handles an INIT, or a call in its place. The boot CPU goes on in the guest, at the reset vector. Any other CPU waits
/// in the guest for a start-up IPI. If another CPU has stopped for good, this one stops as well.
#[cold]
fn init<V: Vcpu, T>(vcpu: &V, machine: &Machine<V, T>) -> Outcome {
    if vcpu.stop_is_wanted() {
        return Outcome::Stop(Stop::Elsewhere);
    }
    let percpu = vcpu.percpu();
    if percpu.is_boot_cpu() {
        percpu.startup.run();
        percpu.reset_address();
        machine.locked.enters(percpu);
        return Outcome::Init;
    }
    match machine.startup {
        Startup::Hardware(_) => {
            percpu.flushed.leaves();
            Outcome::Init
        }
        Startup::Emulated { .. } if percpu.startup.arrived() || vcpu.takes_init() => {
            Outcome::Stop(Stop::Init)
        }
        Startup::Emulated { .. } | Startup::Landing | Startup::Alone => {
            percpu.flushed.leaves();
            Outcome::Stop(Stop::InitPending)
        }
    }
}

#[cold]
fn control_write<V: Vcpu, T>(vcpu: &mut V, machine: &Machine<V, T>, write: ControlWrite) -> Outcome {
    let guard = |vcpu: &mut V, new: &Controls| guard::controls(vcpu, machine, new);
    match vcpu.write_control(write, |cr3| pdptes(machine, cr3), guard) {
        Ok(()) => Outcome::Advance,
        Err(Fault) => REFUSE,
    }
}

/// Returns the page-directory-pointer-table entries at `cr3`, or [`Fault`] if they are not valid.
fn pdptes<V: Vcpu, T>(machine: &Machine<V, T>, cr3: u64) -> Result<[u64; 4], Fault> {
    let table = Gpa(cr3 & 0xffff_ffe0);
    // The CPU reads the entries at any address, and so does Vidar, which can read every address below 4 GiB.
    let entries = [0, 1, 2, 3].map(|index| machine.guest.word(table + index * 8).unwrap_or(0));
    if control::valid_pdptes(&entries, machine.physical_address_bits) { Ok(entries) } else { Err(Fault) }
}

#[cold]
fn xsetbv<V: Vcpu>(vcpu: &mut V) -> Outcome {
    let (register, value) = (vcpu.registers().low(Register::Rcx), vcpu.registers().edx_eax());
    let features = vcpu.cpuid(0xd, 0);
    let supported = u64::from(features.edx) << 32 | u64::from(features.eax);
    // A CPU checks CR4.OSXSAVE and the privilege level before the exit. On AMD-V, QEMU 10.0 checks neither, and Bochs
    // does not check the privilege level. Vidar's own CR4 has OSXSAVE set, so XSETBV would not raise #UD below. Intel
    // SDM Vol. 3C, 26.1.1 "Relative Priority of Faults and VM Exits"; AMD APM Vol. 2, 15.9 "Instruction Intercepts".
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
fn second_stage<V: Vcpu, T: TableMemory>(
    vcpu: &mut V,
    machine: &Machine<V, T>,
    violation: Violation,
) -> Outcome {
    if violation.mapped && machine.watched == Some(violation.address.align_down(PAGE_SIZE)) {
        return apic::write(vcpu, machine, violation.address);
    }
    let registers = remapping::access(vcpu, machine, violation.address);
    if let Some(outcome) = registers.or_else(|| io_apic::access(vcpu, machine, violation.address)) {
        return outcome;
    }
    if violation.mapped {
        if let Some(outcome) = lock::denied(vcpu, machine, violation.address) {
            return outcome;
        }
        // Every page but the watched one and those that are locked is mapped with all rights. So the CPU has denied the
        // access by a cached translation, from before another CPU changed the tables.
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
        // The second stage has four levels and translates 48 bits, but physical addresses may have more. On a bare
        // machine an access to an address without memory reads ones or raises an exception, depending on the chip set.
        // Vidar raises an exception, so that the guest notices.
        Touch::Beyond => return Outcome::refused_access(vcpu.interrupted()),
    }
    Outcome::Resume
}

/// Reports that the guest touched Vidar's region, once. The guest's accesses to Vidar's other memory are not reported.
fn report_touch<V: Vcpu, T>(vcpu: &V, machine: &Machine<V, T>, address: Gpa) {
    // Linux searches low memory, where the trampoline's page is, for firmware's tables.
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
