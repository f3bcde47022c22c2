//! The boot order, with one line for each step.

#![expect(unsafe_code, reason = "the stack is switched, and the memory of the trampoline is reused")]

use alloc::boxed::Box;
use core::convert::Infallible;
use core::ops::Range;

use vidar_core::boot::annex::{self, Need};
use vidar_core::boot::landing;
use vidar_core::boot::memory_plan::MemoryPlan;
use vidar_core::boot::options::{Dma, Gdb, Guard, Options};
use vidar_core::boot::refusal::Refusal;
use vidar_core::boot::startup::Preference;
use vidar_core::console::ending;
use vidar_core::kept_log::ramoops;
use vidar_core::kept_log::summary::Summary;
use vidar_core::loader::info::BootInfo;
use vidar_core::loader::{multiboot1, multiboot2};
use vidar_core::mem::addr::{Hpa, Hva, PAGE_SIZE, PageSize};
use vidar_core::mem::layout::direct;
use vidar_core::vmm::entry::Begin;

use super::linux::Linux;
use super::machine::KeptDevices;
use super::{consoles, linux, machine, multiboot};
use crate::arch::{apic, cpuid, instructions, stop};
use crate::cpus::cpu::{Cpu, Stacks};
use crate::cpus::further;
use crate::cpus::inside::run_to_end;
use crate::cpus::rings;
use crate::debug::log as console;
use crate::debug::version::RELEASE;
use crate::debugger::{ports, start};
use crate::extension::Extension;
use crate::extension::amd::Svm;
use crate::extension::intel::Vmx;
use crate::firmware::cpu_list::CpuList;
use crate::firmware::sleep;
use crate::firmware::tables::Tables;
use crate::host::memory::{BootMemory, HostMemory};
use crate::host::tables::{Frames, FreeRange, reclaim_boot_frames};
use crate::host::vcpu::{FrameSet, Maps, Own};
use crate::host::{heap, image, physical};
use crate::iommu::find::Units;

/// What the first half of the boot order passes to the second, which runs on another stack.
struct Boot {
    info: BootInfo<'static>,
    options: Options,
    memory: HostMemory,
    stacks: Stacks,
}

/// Runs the boot order. The trampoline calls this function in long mode, on its own page tables and stack, with
/// interrupts off. `magic` and `information` are the loader's EAX and EBX, and `loaded_at` is the physical address of
/// the image.
pub extern "C" fn start(magic: u32, information: u32, loaded_at: u32) -> ! {
    image::loaded_at(Hpa(loaded_at.into()));
    let info = read_information(magic, information);
    consoles::start(info.as_ref().ok());
    heap::init();
    match info.and_then(boot_on_trampoline_stack) {
        Err(refusal) => {
            if magic == multiboot1::MAGIC {
                multiboot::framebuffer_of_version_1(information).iter().for_each(consoles::add);
            }
            refuse(&refusal)
        }
        Ok(boot) => {
            let (stack, boot) = (boot.stacks.main, Box::into_raw(boot));
            // SAFETY: the stack is new, mapped and aligned to a page, and the box goes to `proceed` alone, which may be
            // called with it once.
            unsafe { instructions::switch_stack(stack, proceed, boot) }
        }
    }
}

/// Reads the loader's information. This is done before anything is written, since the loader may have put it anywhere.
fn read_information(magic: u32, information: u32) -> Result<BootInfo<'static>, Refusal> {
    match magic {
        multiboot2::MAGIC => multiboot::read(information),
        _ => Err(Refusal::NotMultiboot2(magic)),
    }
}

/// Runs the first half of the boot order, on the trampoline's page tables and stack, up to the loading of Vidar's own
/// page tables.
fn boot_on_trampoline_stack(info: BootInfo<'static>) -> Result<Box<Boot>, Refusal> {
    let options = consoles::choose(&info);
    ending::set_choice(options.on_crash);
    if info.memory.usable_bytes() == 0 {
        return Err(Refusal::NoMemoryMap);
    }
    greet(&info);
    show_last_report();
    if !cpuid::has_no_execute() {
        return Err(Refusal::NoExecuteDisable);
    }
    let largest = if cpuid::has_1g_pages() { PageSize::Size1G } else { PageSize::Size2M };
    let mut memory = HostMemory::build(&info.memory, largest).map_err(|_| Refusal::TooMuchMemory)?;
    let stacks = Stacks::of_boot_cpu(&mut memory).map_err(|_| Refusal::TooMuchMemory)?;
    memory.tables.load();
    Ok(Box::new(Boot { info, options, memory, stacks }))
}

/// Runs the second half of the boot order, on Vidar's own page tables and stack.
///
/// # Safety
/// `boot` comes from [`Box::into_raw`], and nothing else uses it.
unsafe extern "C" fn proceed(boot: *mut Boot) -> ! {
    // SAFETY: the caller promises that the pointer comes from `Box::into_raw` and that nothing else uses it.
    let boot = unsafe { Box::from_raw(boot) };
    match run_guest(*boot) {
        Err(refusal) => refuse(&refusal),
        Ok(never) => match never {},
    }
}

/// Runs the guest on the extension that the CPU has. Returns only if Vidar refuses to start.
fn run_guest(boot: Boot) -> Result<Infallible, Refusal> {
    if cpuid::has_vmx() {
        run_guest_on::<Vmx>(boot)
    } else if cpuid::has_svm() {
        run_guest_on::<Svm>(boot)
    } else {
        Err(Refusal::NoVirtualization)
    }
}

/// Builds the guest's machine on the extension `E` and runs the guest. Returns only if Vidar refuses to start.
fn run_guest_on<E: Extension>(boot: Boot) -> Result<Infallible, Refusal> {
    let Boot { info, options, mut memory, stacks } = boot;
    // SAFETY: `proceed` runs on Vidar's own page tables and on another stack, and the boot order gets here once.
    unsafe { reclaim_boot_frames(&mut memory.frames) };
    let cpu = Box::leak(Box::new(Cpu::on(stacks, 0, apic::id())));
    // SAFETY: this is the boot CPU, for which `cpu` was made.
    let cpu = unsafe { cpu.load() };
    consoles::map_screen(&info, &options, &mut memory)?;
    let extension = E::probe()?;
    extension.describe();
    let mut gdb = start::line(&options);
    let maps =
        maps::<E>(gdb.as_ref().map(|(_, gdb)| gdb), &mut memory.frames).ok_or(Refusal::TooMuchMemory)?;
    let frames = E::Frames::allocate(&mut memory.frames).ok_or(Refusal::TooMuchMemory)?;
    let plan = MemoryPlan::new(&info.memory, image::region());
    let mut memory = BootMemory { info: &info, plan, own: memory };
    let mut tables = Tables::new(&info);
    let listed = CpuList::read(&tables, cpu.percpu());
    // The kernel of a guest that is guarded may be an attacker's, and could name a page that Vidar cannot replace.
    let closed = options.guard >= Guard::Data;
    let lands = extension.leaves_init_to_the_cpu()
        && !options.emulate_startup
        && !closed
        && landing::leaves_low_memory(linux::release_of(&info));
    let units = Units::find(&tables, options.dma == Dma::Guard, &memory.plan, &mut memory.own);
    let need = Need {
        cpus: listed.others.len() as u64,
        frames_per_cpu: further::frames::<E>() as u64,
        tables: Need::tables(memory.plan.beside_region(), extension.largest_page())
            + units.frames(memory.plan.beside_region().ram_top()),
        low_memory: if lands { landing::FRAMES as u64 } else { 0 },
        frames_per_ring: options.trace.map_or(0, rings::frames) as u64,
    };
    add_memory(&need, listed.place(), &mut memory);
    let low_memory = if lands { memory.own.frames.allocate_run(landing::FRAMES) } else { None };
    let preference = match low_memory {
        Some(low_memory) => Preference::Landing { low_memory },
        None if options.emulate_startup => Preference::Emulated,
        None if closed => Preference::Closed,
        None => Preference::Auto,
    };
    let cpus = further::start(extension, &listed, &mut memory, preference)?;
    let BootMemory { mut plan, mut own, .. } = memory;
    if let Some(size) = options.trace {
        rings::keep(cpus.all, size, &mut own.frames, need.tables as usize);
    }
    let listed = listed.place();
    tables.leave_out(plan.kept());
    sleep::withdraw_all(&tables);
    let linux = prepare_beside_record(listed, &info, &mut plan)?;
    let pin =
        start::keep_pin::<E::Cpu>(&mut gdb, |irq| tables.pin(irq), &plan.guest_ram(), cpu.percpu(), &mut own);
    let guard = units.guard(&tables, &plan, &mut own, cpus.low_memory.moved().cloned());
    let devices = KeptDevices { dma: Box::leak(Box::new(guard)), pin };
    let (machine, common) = machine::make(&cpus, &options, &plan, own.frames, maps, gdb.is_some(), devices)?;
    let machine: &'static _ = Box::leak(Box::new(machine));
    if let Some(gdb) = gdb {
        start::start(machine, common.reader, plan.guest_ram(), gdb);
    }
    cpus.enter(machine, common)?;
    let free = machine.memory.lock().tables().available() as u64 * PAGE_SIZE;
    let region = image::region();
    log::info!(
        "keeps {} to {} for itself, {} KiB of it free",
        region.start,
        Hpa(region.end.0 - 1),
        free >> 10
    );
    if options.check {
        log::info!("checks the manual's rules before each entry (check=on)");
    }
    // A debugger reads the counters at this address from outside, without causing an exit.
    let counters = Hva(&raw const cpu.percpu().counters as u64);
    log::debug!("the exits of the boot CPU are counted at {}", image::translate(counters));
    log::info!("the machine is the guest's now; run `vidarctl` in it for details");
    let cursor = console::hand_over();
    // The point of no return: from here on the memory in which the modules lay is overwritten.
    let state = linux::hand_over(linux, &info, &plan, cursor);
    // SAFETY: the guest's memory has been filled, and each further CPU has left the trampoline or has been sent an
    // INIT. One that waits in the guest executes a page that is not moved.
    unsafe { cpus.low_memory.lay() };
    let own = Own { frames, cpu: &cpu };
    let mut vcpu = cpus.extension.cpu(&common, &own, Begin::Kernel(state))?;
    stop::arm(cpus.all.len() == 1 || cpus.extension.survives_init());
    machine.locked.enters(cpu.percpu());
    run_to_end(&mut vcpu, machine)
}

/// Takes the frames of the maps that all CPUs share. That of the I/O ports is for gdb's line. Returns `None` if too few
/// are free.
fn maps<E: Extension>(gdb: Option<&Gdb>, frames: &mut Frames) -> Option<Maps> {
    let msrs = E::msr_map(frames)?;
    let ports = match gdb {
        Some(gdb) => Some(ports::map(gdb.line.port(), frames)?),
        None => None,
    };
    Some(Maps { msrs, ports })
}

/// Takes an annex for Vidar if its region has too little memory for what it needs. Does nothing if no place is free for
/// it. Firmware's list of CPUs is at `listed`.
fn add_memory(need: &Need, listed: Range<Hpa>, memory: &mut BootMemory<'_>) {
    let BootMemory { info, plan, own: HostMemory { frames, .. } } = memory;
    let Some((heap, rest)) = need.beyond(frames.available() as u64) else { return };
    let Some(place) = free_place(info, plan, listed, heap + rest, annex::UNIT) else { return };
    // SAFETY: the place is RAM that holds nothing, the direct map covers it, and the guest is not given it.
    let free = unsafe {
        heap::add(direct(place.start), heap as usize);
        FreeRange::new(place.start + heap..place.end)
    };
    frames.add(free);
    plan.keep(place, "for all CPUs and all memory");
}

/// Prepares Linux, and shows it the log of the last start as a record of its module `ramoops`, if that start has ended
/// in a report and a place is free for the record that Linux does not need to start.
fn prepare_beside_record(
    listed: Range<Hpa>,
    info: &BootInfo<'_>,
    plan: &mut MemoryPlan<'_>,
) -> Result<Linux, Refusal> {
    let last = console::last().filter(|last| last.report().is_some());
    let size = ramoops::RECORD_BYTES as u64;
    let place = last.and_then(|_| free_place(info, plan, listed, size, PAGE_SIZE));
    let linux = plan.show_if_it_fits(place, |plan| linux::prepare(info, plan))?;
    if let Some(last) = last.filter(|_| !plan.shown().is_empty()) {
        let start = plan.shown().start;
        // SAFETY: the place is RAM that holds nothing and has room for a record, the direct map covers it, and nothing
        // else is put there, since the plan reserves it.
        ramoops::write(last, |at, bytes| unsafe { physical::write(start + at, bytes) });
    }
    Ok(linux)
}

/// Returns a place for `size` bytes in memory that holds nothing, if there is one.
fn free_place(
    info: &BootInfo<'_>,
    plan: &MemoryPlan<'_>,
    listed: Range<Hpa>,
    size: u64,
    align: u64,
) -> Option<Range<Hpa>> {
    // Firmware may have put its list of CPUs into memory that it calls usable, and Vidar goes on to change the list.
    let taken = info.occupied().chain(info.boot_services()).chain([image::region(), listed]);
    annex::place(plan.beside_region(), taken, size, align)
}

/// Logs the versions of Vidar and of the loader, the CPU, the size of memory, and the modules.
fn greet(info: &BootInfo<'_>) {
    let brand = cpuid::brand();
    let brand = core::str::from_utf8(&brand).unwrap_or_default().trim_matches(['\0', ' ']);
    log::info!("Vidar {RELEASE}, started by {}", info.loader);
    log::info!("{brand}, {} MiB of memory", info.memory.usable_bytes() >> 20);
    log::debug!("loaded at {}", image::region().start);
    for module in info.modules.clone() {
        log::debug!("module at {} to {}", module.range.start, Hpa(module.range.end.0.saturating_sub(1)));
    }
}

/// Shows the main lines of the report in which the last start has ended, if it has.
fn show_last_report() {
    if let Some(report) = console::last().and_then(Summary::of) {
        log::warn!("the last start ended in: {report}");
    }
}

/// Takes the consoles back, logs why Vidar does not start, and halts.
fn refuse(refusal: &Refusal) -> ! {
    console::take_back();
    log::error!("cannot start: {refusal}");
    console::drain();
    instructions::halt_forever()
}
