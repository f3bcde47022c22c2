//! The further CPUs: found by the MADT, started by INIT and start-up IPIs, compared with the boot CPU, and put under Vidar
//! before the guest's first instruction.

#![expect(unsafe_code, reason = "firmware's tables are read, and other CPUs run what is set up here")]

use alloc::vec::Vec;
use core::sync::atomic::{AtomicPtr, Ordering};

use spin::Once;
use vidar_core::boot::memory_plan::MemoryPlan;
use vidar_core::boot::refusal::Refusal;
use vidar_core::boot::startup::{self, Conditions, Preference};
use vidar_core::loader::info::BootInfo;
use vidar_core::mem::addr::Hpa;
use vidar_core::vmm::entry::Begin;
use vidar_core::vmm::machine::{Machine, Startup};
use vidar_core::vmm::percpu::PerCpu;
use vidar_core::vmm::run;
use vidar_core::x86::icr::{Destination, Message};

use super::ap::{Slot, Trampoline};
use super::cpu::{self, Cpu};
use super::end::end;
use crate::arch::{apic, instructions};
use crate::extension::Extension;
use crate::firmware::listed::Listed;
use crate::host::memory::HostMemory;
use crate::host::physical::GuestReader;
use crate::host::tables::Frames;

/// Frames that are not for further CPUs: second-stage tables need them.
const RESERVE: usize = 96;

/// Ticks of the TSC between INIT and start-up IPI, and how long a CPU has to come up after it, in a first and in a second
/// attempt. CPUs of this century need no pause; the second is 10 ms where the TSC ticks at 5 GHz, as old ones want it.
const ATTEMPTS: [(u64, u64); 2] = [(1_000_000, 50_000_000), (50_000_000, 250_000_000)];

/// One further CPU.
struct Further<E: Extension> {
    cpu: Cpu,
    frames: E::Frames,
    /// What it found out of its extension: it is there.
    probed: Once<Result<E, Refusal>>,
    /// It waits in the guest.
    ready: Once<Result<(), Refusal>>,
}

/// What CPUs need to run the guest.
struct Task<E: Extension> {
    extension: E,
    machine: &'static Machine<E::Format, Frames>,
    /// The second stage's root table, which stays where it is: an INIT may come at any time, and a CPU that it takes must
    /// not hold the lock that it is behind.
    root: Hpa,
    reader: GuestReader,
}

/// What the boot CPU and the others share.
struct Shared<E: Extension> {
    further: Vec<Further<E>>,
    task: Once<Task<E>>,
}

/// All CPUs of the guest.
pub struct Cpus<E: Extension> {
    /// Their blocks, by number.
    pub all: &'static [&'static PerCpu],
    /// Who starts the further ones.
    pub startup: Startup,
    /// What every start-up IPI is to lead to, with [`Startup::Landing`].
    pub landing: Option<Trampoline>,
    shared: &'static Shared<E>,
}

static SHARED: AtomicPtr<()> = AtomicPtr::new(core::ptr::null_mut());

/// Frames that a further CPU takes.
pub const fn frames<E: Extension>() -> usize {
    cpu::FRAMES + E::FRAMES
}

/// Starts them. `plan` keeps the memory that is needed to start them again. `preference` says who is to start them for
/// the guest; with [`Preference::Landing`] it is Vidar all the same where no page is free for the trampoline.
///
/// # Errors
/// [`Refusal`] where they are not all alike.
pub fn start<E: Extension>(
    extension: &E,
    listed: &Listed<'_>,
    info: &BootInfo<'_>,
    plan: &mut MemoryPlan<'_>,
    preference: Preference,
    memory: &mut HostMemory,
    msr_map: Hpa,
) -> Result<Cpus<E>, Refusal> {
    let further: Vec<Further<E>> =
        listed.others.iter().zip(1..).map_while(|(id, index)| take(*id, index, memory, msr_map)).collect();
    if further.len() < listed.others.len() {
        log::warn!(
            "this machine has {} CPUs, more than the {} that Vidar's memory holds; the guest runs with those",
            listed.others.len() + 1,
            further.len() + 1
        );
    }
    let shared: &'static mut Shared<E> =
        alloc::boxed::Box::leak(alloc::boxed::Box::new(Shared { further, task: Once::new() }));
    let needed = !shared.further.is_empty() || preference == Preference::Landing;
    let trampoline = if needed { install(shared, info, plan, memory)? } else { None };
    let shared: &'static Shared<E> = shared;
    if let Some(trampoline) = &trampoline {
        wake(&shared.further, trampoline.vector());
    }
    let mut all = Vec::from([listed.boot]);
    for further in &shared.further {
        let percpu = further.cpu.percpu();
        match further.probed.get() {
            Some(Ok(theirs)) => match extension.difference(theirs) {
                None => all.push(percpu),
                Some(difference) => {
                    let (cpu, apic_id) = (percpu.index, percpu.apic_id);
                    return Err(Refusal::Unlike { cpu, apic_id, what: E::NAMES, difference });
                }
            },
            Some(Err(refusal)) => return Err(refusal.clone()),
            None => {
                log::warn!(
                    "CPU {} (APIC ID {}) does not answer; the guest runs without it: look for a setting of it in the \
                     firmware's setup",
                    percpu.index,
                    percpu.apic_id
                );
                // Late is never: it must not come up on a page that is another's by then.
                apic::send(Message::Init, Destination::Physical(percpu.apic_id));
            }
        }
    }
    let lost = |id| all.iter().all(|cpu| cpu.apic_id != id);
    listed.withdraw(lost);
    let conditions = Conditions {
        trampoline: trampoline.as_ref().map(Trampoline::vector),
        waits_for_sipi: extension.waits_for_sipi(),
        has_further: listed.has_further(),
        guarded: listed.damaged || listed.any(lost),
    };
    let startup = startup::choose(preference, conditions);
    let mut landing = None;
    if let Some(trampoline) = trampoline {
        match startup {
            Startup::Emulated { .. } => plan.keep(trampoline.page(), "to start CPUs from"),
            // The guest has the page in another place, and until it runs the page is free.
            Startup::Landing => {
                trampoline.remove();
                landing = Some(trampoline);
            }
            Startup::Hardware => {
                memory.tables.unmap_identity();
                trampoline.remove();
            }
        }
    }
    if all.len() > 1 {
        let how = if matches!(startup, Startup::Emulated { .. }) { ", started by Vidar" } else { "" };
        log::info!("{} CPUs{how}", all.len());
    }
    Ok(Cpus { all: all.leak(), startup, landing, shared })
}

/// Stacks and frames of one more CPU, or `None` where there is too little memory.
fn take<E: Extension>(apic_id: u32, index: u32, memory: &mut HostMemory, msr_map: Hpa) -> Option<Further<E>> {
    if memory.frames.available() < RESERVE + frames::<E>() {
        return None;
    }
    let cpu = Cpu::new(index, apic_id, memory).ok()?;
    let frames = E::frames(&mut memory.frames, msr_map)?;
    Some(Further { cpu, frames, probed: Once::new(), ready: Once::new() })
}

/// Puts the trampoline into its place.
fn install<E: Extension>(
    shared: &'static Shared<E>,
    info: &BootInfo<'_>,
    plan: &MemoryPlan<'_>,
    memory: &mut HostMemory,
) -> Result<Option<Trampoline>, Refusal> {
    SHARED.store((&raw const *shared).cast_mut().cast(), Ordering::Release);
    let slot =
        |further: &Further<E>| Slot { apic_id: further.cpu.percpu().apic_id, stack: further.cpu.stacks.main };
    let slots = shared.further.iter().map(slot).collect();
    // SAFETY: the page is mapped before a CPU is sent there; `further_cpu` is for the slots of `SHARED`.
    let trampoline =
        unsafe { Trampoline::install(info, plan, memory.tables.root(), slots, further_cpu::<E>) };
    match &trampoline {
        Some(trampoline) => {
            memory.map_identity(trampoline.page().start).map_err(|_| Refusal::TooMuchMemory)?;
        }
        None if shared.further.is_empty() => {}
        None => log::warn!(
            "no memory below 640 KiB is free to start the other CPUs from; the guest runs with one CPU: update \
             the firmware, or boot the bare menu entry"
        ),
    }
    Ok(trampoline)
}

/// Starts all of them at once, and waits until they are there, or have had the time to.
fn wake<E: Extension>(further: &[Further<E>], vector: u8) {
    for (pause, patience) in ATTEMPTS {
        let missing = || further.iter().filter(|further| !further.probed.is_completed());
        if missing().next().is_none() {
            return;
        }
        let send = |message| {
            missing().for_each(|further| {
                apic::send(message, Destination::Physical(further.cpu.percpu().apic_id));
            });
        };
        send(Message::Init);
        instructions::wait(pause, || false);
        send(Message::Startup(vector));
        instructions::wait(patience, || missing().next().is_none());
    }
}

impl<E: Extension> Cpus<E> {
    /// Has every CPU wait for its start-up IPI, with the machine that it is to run the guest on.
    ///
    /// # Errors
    /// [`Refusal::Extension`] where a CPU does not do as it said.
    pub fn enter(
        &self,
        extension: E,
        machine: &'static Machine<E::Format, Frames>,
        reader: GuestReader,
    ) -> Result<(), Refusal> {
        let root = machine.memory.lock().root();
        self.shared.task.call_once(|| Task { extension, machine, root, reader });
        let here = || self.shared.further.iter().filter(|further| further.probed.is_completed());
        match self.startup {
            Startup::Hardware => here().try_for_each(|further| further.ready.wait().clone()),
            Startup::Landing | Startup::Emulated { .. } => {
                for further in here() {
                    let percpu = further.cpu.percpu();
                    percpu.startup.init();
                    apic::send(Message::Init, Destination::Physical(percpu.apic_id));
                }
                Ok(())
            }
        }
    }
}

/// Where a further CPU begins, on its own stack: at the boot, and after each INIT that it takes outside of the guest. `vector`
/// is that of its start-up IPI.
///
/// # Safety
/// This is the CPU of the slot, and runs nothing else.
unsafe extern "C" fn further_cpu<E: Extension>(slot: usize, vector: u8) -> ! {
    // SAFETY: `install` has left it there, for the same extension.
    let shared = unsafe { &*SHARED.load(Ordering::Acquire).cast::<Shared<E>>() };
    let further = &shared.further[slot];
    // SAFETY: the caller's promise.
    unsafe { further.cpu.load() };
    if let Some(task) = shared.task.get() {
        if task.machine.startup == Startup::Landing {
            // One that did not answer at the boot is not of the guest's: the second stage is not made for it.
            if !task.machine.host.cpus.iter().any(|cpu| cpu.apic_id == further.cpu.percpu().apic_id) {
                apic::init_self();
            }
            run_guest(task, further, &Begin::Landed(vector));
        }
        match further.cpu.percpu().startup.take() {
            Some(vector) => run_guest(task, further, &Begin::Startup(vector)),
            None => apic::init_self(),
        }
    }
    further.probed.call_once(E::probe);
    let task = shared.task.wait();
    if task.machine.startup == Startup::Hardware {
        run_guest(task, further, &Begin::Waiting)
    } else {
        // The boot CPU sends an INIT.
        instructions::halt_forever()
    }
}

fn run_guest<E: Extension>(task: &Task<E>, further: &Further<E>, begin: &Begin) -> ! {
    let Task { extension, machine, root, reader } = task;
    let cpu = &further.cpu;
    // What need not be alike is as this CPU has it.
    let own = further.probed.get().and_then(|probed| probed.as_ref().ok()).unwrap_or(extension);
    match own.cpu(further.frames, *root, *reader, cpu.selectors(), cpu.percpu(), begin) {
        Ok(mut vcpu) => {
            further.ready.call_once(|| Ok(()));
            let (stop, exit) = run::run(&mut vcpu, machine);
            end(&mut vcpu, machine, stop, &exit)
        }
        Err(refusal) => {
            // After the boot there is nobody any more to refuse to: the CPU does not come up.
            log::error!("CPU {} cannot be started: {refusal}", further.cpu.percpu().index);
            further.ready.call_once(|| Err(refusal));
            instructions::halt_forever()
        }
    }
}
