//! The further CPUs: found in the MADT, started by INIT and start-up IPIs, compared with the boot CPU, and put under
//! Vidar before the guest's first instruction.

#![expect(unsafe_code, reason = "other CPUs are started, and run what is set up here")]

use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

use spin::Once;
use vidar_core::boot::refusal::Refusal;
use vidar_core::boot::startup::{self, Conditions, Preference};
use vidar_core::boot::wake::wake;
use vidar_core::vmm::entry::Begin;
use vidar_core::vmm::machine::{Machine, Startup};
use vidar_core::vmm::percpu::PerCpu;
use vidar_core::vmm::vcpu::Vcpu;
use vidar_core::x86::icr::{Destination, Message};

use super::ap::{Slot, Trampoline};
use super::cpu::{self, Cpu};
use super::inside::{run_to_end, wait_in};
use super::low_memory::LowMemory;
use super::stopped;
use crate::arch::{apic, instructions};
use crate::extension::Extension;
use crate::firmware::cpu_list::CpuList;
use crate::host::memory::{BootMemory, HostMemory};
use crate::host::tables::Frames;
use crate::host::vcpu::{Common, FrameSet, Own, ThisCpu};

/// The number of frames that further CPUs do not get, since second-stage tables need them.
const RESERVE: usize = 96;

/// One further CPU.
struct Further<E: Extension> {
    cpu: Cpu,
    frames: E::Frames,
    /// True once the CPU has begun to run Vidar, or the boot CPU has given it up. The first of them sets it.
    claimed: AtomicBool,
    /// What [`Extension::probe`] has returned on the CPU. It is set once the CPU has started.
    probed: Once<Result<E, Refusal>>,
    /// Set once the CPU's virtual CPU is ready to run, or could not be made.
    ready: Once<Result<(), Refusal>>,
}

impl<E: Extension> Further<E> {
    /// Returns true to the first who asks: the CPU, which then runs Vidar, or the boot CPU, which then gives it up.
    fn claim(&self) -> bool {
        !self.claimed.swap(true, Ordering::SeqCst)
    }

    /// Returns the CPU's answer, or `None` if the CPU has not begun in time. It then never runs Vidar.
    fn answer(&self) -> Option<&Result<E, Refusal>> {
        if self.claim() { None } else { Some(self.probed.wait()) }
    }
}

/// The proof that a CPU can wait in the guest for a start-up IPI, on the extension `E`.
type Wait<E> = <<E as Extension>::Cpu as Vcpu>::WaitForSipi;

/// What the further CPUs need to run the guest.
struct Task<E: Extension> {
    extension: E,
    machine: &'static Machine<E::Cpu, Frames>,
    common: Common,
}

/// What the boot CPU and the further CPUs share.
struct Shared<E: Extension> {
    further: Vec<Further<E>>,
    task: Once<Task<E>>,
}

/// All CPUs of the guest.
pub struct Cpus<E: Extension> {
    /// The extension, with the capabilities of the boot CPU.
    pub extension: E,
    /// The per-CPU blocks, by the CPUs' numbers.
    pub all: &'static [&'static PerCpu],
    /// Who acts on the messages by which the guest starts further CPUs.
    pub startup: Startup<Wait<E>>,
    /// What of the guest's low memory is moved.
    pub low_memory: LowMemory,
    shared: &'static Shared<E>,
}

/// The [`Shared`] of the extension in use, for [`further_cpu`].
static SHARED: AtomicPtr<()> = AtomicPtr::new(core::ptr::null_mut());

/// Returns the number of frames that a further CPU takes.
pub const fn frames<E: Extension>() -> usize {
    cpu::FRAMES + E::Frames::COUNT
}

/// Starts the further CPUs, compares them with the boot CPU, and decides who starts them for the guest.
/// `preference` says what is wanted; [`Preference::Landing`] has no effect if no page is free for the trampoline. The
/// plan of `memory` lends the guest the trampoline's page if the CPUs are to wait there.
///
/// # Errors
/// [`Refusal`] if a further CPU cannot use the extension or differs from the boot CPU, or if too few frames are free.
pub fn start<E: Extension>(
    extension: E,
    listed: &CpuList<'_>,
    memory: &mut BootMemory<'_>,
    preference: Preference,
) -> Result<Cpus<E>, Refusal> {
    let further: Vec<Further<E>> =
        listed.others.iter().zip(1..).map_while(|(id, index)| take(*id, index, &mut memory.own)).collect();
    if further.len() < listed.others.len() {
        log::warn!(
            "this machine has {} CPUs, and Vidar's memory suffices for {} of them; the guest runs with those",
            listed.others.len() + 1,
            further.len() + 1
        );
    }
    let shared: &'static mut Shared<E> =
        alloc::boxed::Box::leak(alloc::boxed::Box::new(Shared { further, task: Once::new() }));
    let needed = !shared.further.is_empty() || matches!(preference, Preference::Landing { .. });
    let trampoline = if needed { install(shared, memory)? } else { None };
    let shared: &'static Shared<E> = shared;
    if let Some(trampoline) = &trampoline {
        wake_all(&shared.further, trampoline.vector());
    }
    let mut all = Vec::from([listed.boot]);
    for further in &shared.further {
        let percpu = further.cpu.percpu();
        match further.answer() {
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
                // The CPU must not come up later, when its page has another use. After this INIT it waits for a
                // start-up IPI.
                apic::send(Message::Init, Destination::Physical(percpu.apic_id));
            }
        }
    }
    let lost = |id| all.iter().all(|cpu| cpu.apic_id != id);
    listed.withdraw(lost);
    let conditions = Conditions {
        trampoline: trampoline.as_ref().map(Trampoline::vector),
        wait_for_sipi: extension.wait_for_sipi(),
        has_further: listed.has_further(),
        later: listed.later,
        uncontrolled: listed.damaged || listed.any(lost),
    };
    let startup = startup::choose(preference, conditions);
    let mut low = LowMemory::InPlace;
    match (trampoline, startup, preference) {
        (None, ..) => {}
        (Some(trampoline), Startup::Emulated { .. }, _) => {
            memory.own.tables.unmap_identity();
            memory.plan.lend(trampoline.page(), "where CPUs wait for the guest to start them");
            trampoline.become_room();
        }
        // The guest will have its copy of the page elsewhere. `LowMemory::lay` writes the trampoline to the page again.
        (Some(trampoline), Startup::Landing, Preference::Landing { low_memory }) => {
            trampoline.remove();
            low = LowMemory::landing(trampoline, &memory.plan.guest_ram(), low_memory);
        }
        (Some(trampoline), ..) => {
            memory.own.tables.unmap_identity();
            trampoline.remove();
        }
    }
    if all.len() > 1 {
        let how = if startup.is_emulated() { ", started by Vidar" } else { "" };
        log::info!("{} CPUs{how}", all.len());
    }
    Ok(Cpus { extension, all: all.leak(), startup, low_memory: low, shared })
}

/// Takes the stacks and frames of one more CPU. Returns `None` if too little memory is left.
fn take<E: Extension>(apic_id: u32, index: u32, memory: &mut HostMemory) -> Option<Further<E>> {
    if memory.frames.available() < RESERVE + frames::<E>() {
        return None;
    }
    let cpu = Cpu::new(index, apic_id, memory).ok()?;
    let frames = E::Frames::allocate(&mut memory.frames)?;
    Some(Further { cpu, frames, claimed: AtomicBool::new(false), probed: Once::new(), ready: Once::new() })
}

/// Installs the trampoline and maps its page. Returns `None` if no page is free, and warns of that if there are further
/// CPUs.
fn install<E: Extension>(
    shared: &'static Shared<E>,
    memory: &mut BootMemory<'_>,
) -> Result<Option<Trampoline>, Refusal> {
    SHARED.store((&raw const *shared).cast_mut().cast(), Ordering::Release);
    let slot =
        |further: &Further<E>| Slot { apic_id: further.cpu.percpu().apic_id, stack: further.cpu.stacks.main };
    let slots = shared.further.iter().map(slot).collect();
    // SAFETY: `map_identity` maps the page before a start-up IPI is sent. The slots are in the order of the CPUs in
    // `SHARED`, so `further_cpu` finds each slot's own CPU there.
    let trampoline = unsafe { Trampoline::install(memory, slots, further_cpu::<E>) };
    match &trampoline {
        Some(trampoline) => {
            memory.own.map_identity(trampoline.page().start).map_err(|_| Refusal::TooMuchMemory)?;
        }
        None if shared.further.is_empty() => {}
        None => log::warn!(
            "no page below 640 KiB is free, and the other CPUs cannot be started without one; the guest runs with \
             one CPU: update the firmware, or boot the bare menu entry"
        ),
    }
    Ok(trampoline)
}

/// Wakes all further CPUs at once, and waits until all have answered or their time is up.
fn wake_all<E: Extension>(further: &[Further<E>], vector: u8) {
    let missing = || further.iter().filter(|further| !further.probed.is_completed());
    let send = |message| {
        missing()
            .for_each(|further| apic::send(message, Destination::Physical(further.cpu.percpu().apic_id)));
    };
    wake(vector, send, |ticks, looks| instructions::wait(ticks, looks, || missing().next().is_none()));
}

impl<E: Extension> Cpus<E> {
    /// Puts every further CPU into the state in which it waits for the guest's start-up IPI, and tells it to run the
    /// guest on `machine` after that.
    ///
    /// # Errors
    /// [`Refusal::Extension`] if a CPU does not work as its capabilities say.
    pub fn enter(&self, machine: &'static Machine<E::Cpu, Frames>, common: Common) -> Result<(), Refusal> {
        self.shared.task.call_once(|| Task { extension: self.extension.clone(), machine, common });
        let here = || self.shared.further.iter().filter(|further| is_listed(self.all, further.cpu.percpu()));
        match self.startup {
            Startup::Alone => Ok(()),
            Startup::Hardware(_) | Startup::Emulated { .. } => {
                here().try_for_each(|further| further.ready.wait().clone())
            }
            Startup::Landing => {
                for further in here() {
                    apic::send(Message::Init, Destination::Physical(further.cpu.percpu().apic_id));
                }
                Ok(())
            }
        }
    }
}

/// Runs a further CPU from the trampoline on: at boot, and with [`Startup::Landing`] after each start-up IPI, whose
/// vector is `vector`.
///
/// # Safety
/// This code runs on the CPU of `slot`, on that slot's stack, and the CPU does not return to anything that it ran
/// before.
unsafe extern "C" fn further_cpu<E: Extension>(slot: usize, vector: u8) -> ! {
    // SAFETY: before the CPU was started, `install` stored the address of a `Shared` of the same extension, which is
    // never freed.
    let shared = unsafe { &*SHARED.load(Ordering::Acquire).cast::<Shared<E>>() };
    let further = &shared.further[slot];
    // This comes first, since the state that it withdraws lies on the stack in use.
    stopped::restart(further.cpu.percpu());
    // SAFETY: the caller promises that this is the slot's own CPU.
    let cpu = unsafe { further.cpu.load() };
    if let Some(task) = shared.task.get() {
        leave_if_unlisted(task, &cpu);
        run_guest(task, further, &cpu, Begin::Landing(vector));
    }
    if !further.claim() {
        apic::init_self();
    }
    further.probed.call_once(E::probe);
    let task = shared.task.wait();
    leave_if_unlisted(task, &cpu);
    match task.machine.startup {
        Startup::Hardware(wait) => run_guest(task, further, &cpu, Begin::Waiting(wait)),
        Startup::Emulated { room: Some(room) } => {
            cpu.percpu().startup.wait();
            run_guest(task, further, &cpu, Begin::Startup(room))
        }
        // The boot CPU will send this CPU an INIT, in `Cpus::enter`.
        _ => instructions::halt_forever(),
    }
}

/// Returns true if `percpu` is among `cpus`.
fn is_listed(cpus: &[&PerCpu], percpu: &PerCpu) -> bool {
    cpus.iter().any(|listed| listed.apic_id == percpu.apic_id)
}

/// Has this CPU wait in hardware for good if it is not part of the guest: it did not answer in time, and the second
/// stage was not built for it.
fn leave_if_unlisted<E: Extension>(task: &Task<E>, cpu: &ThisCpu) {
    if !is_listed(task.machine.host.cpus, cpu.percpu()) {
        apic::init_self();
    }
}

/// Runs the guest on this CPU, from the state that `begin` describes. Halts if the virtual CPU cannot be made.
fn run_guest<E: Extension>(task: &Task<E>, further: &Further<E>, cpu: &ThisCpu, begin: Begin<Wait<E>>) -> ! {
    let Task { extension, machine, common } = task;
    // Capabilities that may differ from CPU to CPU are those of this CPU.
    let extension = further.probed.get().and_then(|probed| probed.as_ref().ok()).unwrap_or(extension);
    let own = Own { frames: further.frames, cpu };
    match extension.cpu(common, &own, begin) {
        Ok(mut vcpu) => {
            further.ready.call_once(|| Ok(()));
            match begin {
                Begin::Startup(room) => wait_in(&mut vcpu, *machine, room),
                Begin::Landing(_) => machine.locked.enters(cpu.percpu()),
                Begin::Waiting(_) | Begin::Kernel(_) => {}
            }
            run_to_end(&mut vcpu, *machine)
        }
        Err(refusal) => {
            // After boot nobody waits for the refusal, so the log alone reports that the CPU does not come up.
            log::error!("CPU {} cannot be started: {refusal}", cpu.percpu().index);
            further.ready.call_once(|| Err(refusal));
            instructions::halt_forever()
        }
    }
}
