//! Building the guest's machine: its memory, and what its CPUs share, on either extension.

#![expect(unsafe_code, reason = "microcode is loaded for the guest")]

use alloc::boxed::Box;
use core::sync::atomic::AtomicBool;

use spin::Mutex;
use vidar_core::boot::memory_plan::MemoryPlan;
use vidar_core::boot::options::{Guard, Options};
use vidar_core::boot::refusal::Refusal;
use vidar_core::iommu::guard::DmaGuard;
use vidar_core::kernel::known::KnownKernel;
use vidar_core::mem::addr::{Gpa, Hpa, PAGE_SIZE};
use vidar_core::mem::identity::Identity;
use vidar_core::mem::locks::Locks;
use vidar_core::mem::view::{Reader, View};
use vidar_core::policy::cpuid::Policy;
use vidar_core::policy::msr;
use vidar_core::vmm::guard::locked::Locked;
use vidar_core::vmm::kept_pin::KeptPin;
use vidar_core::vmm::machine::{Host, Machine};
use vidar_core::vmm::memory::GuestMemory;
use vidar_core::vmm::observer::Wanted;
use vidar_core::vmm::refusals::Refusals;
use vidar_core::vmm::update::MicrocodeUpdate;
use x86_64::registers::control::Cr3;

use crate::arch::msr::Fault;
use crate::arch::{self, cpuid};
use crate::cpus::further::Cpus;
use crate::debug;
use crate::extension::Extension;
use crate::host::physical::GuestReader;
use crate::host::tables::{self, Frames};
use crate::host::vcpu::{Common, Maps};
use crate::host::window;

/// The address of the local APIC's page unless software has moved it.
const APIC_PAGE: Gpa = Gpa(0xfee0_0000);

/// Loads an update of this CPU's microcode. Its pages are mapped while the CPU reads them.
///
/// # Errors
/// [`Fault`] if WRMSR raises an exception, or if this CPU has no per-CPU block yet.
fn load_microcode(update: MicrocodeUpdate<'_>) -> Result<(), Fault> {
    let loaded = window::with_pages(update.pages, |start| {
        // SAFETY: the MSR only loads microcode. The CPU accepts an update only if its maker has
        // signed it. If the CPU reads past the mapped pages, it faults, and the fix-up catches the fault.
        unsafe { arch::msr::write_checked(update.loader.index(), start.0 + update.offset) }
    });
    loaded.unwrap_or(Err(Fault))
}

/// Returns the reader of the guest's memory, which is mapped as `identity` says, with the page at `decoy` in place of
/// Vidar's memory.
#[inline(never)] // it does not depend on the extension
fn reader(plan: &MemoryPlan<'_>, identity: &Identity, decoy: Hpa, physical_address_bits: u32) -> GuestReader {
    GuestReader(Reader::new(
        Box::leak(Box::new(View {
            mapped: tables::in_direct_map(plan.beside_region()),
            hidden: identity.hidden.clone(),
            moved: identity.moved.clone(),
            decoy,
            physical_address_bits,
            alias: identity.alias,
        })),
        &plan.guest_ram(),
    ))
}

/// The devices whose registers Vidar accesses in place of the guest.
pub struct KeptDevices {
    /// The guard of Vidar's memory against devices.
    pub dma: &'static DmaGuard,
    /// The pin of an I/O APIC that Vidar keeps for the debugger, if it does.
    pub pin: Option<KeptPin>,
}

/// Builds the guest's memory out of `frames`, and what else its CPUs share, and fills the MSR map of `maps`. With
/// `debugger` gdb can stop the guest. Returns the machine, and what the virtual CPUs are made from.
///
/// # Errors
/// [`Refusal::TooMuchMemory`] if there are too few frames.
pub fn make<E: Extension>(
    cpus: &Cpus<E>,
    options: &Options,
    plan: &MemoryPlan<'_>,
    frames: Frames,
    maps: Maps,
    debugger: bool,
    KeptDevices { dma, pin }: KeptDevices,
) -> Result<(Machine<E::Cpu, Frames>, Common), Refusal> {
    let extension = &cpus.extension;
    let encryption = extension.encryption();
    let kept = plan.kept().to_vec();
    let ram = plan.guest_ram();
    let emulated = cpus.startup.is_emulated();
    let moved = cpus.low_memory.moved().cloned();
    let watched = emulated.then_some(APIC_PAGE);
    let mut msrs = E::MSRS.to_vec();
    if options.guard >= Guard::Cpu {
        msrs.insert(0, E::GUARDED);
    }
    msrs.extend(emulated.then_some(msr::STARTUP));
    msrs.extend(cpuid::has_hypervisor().then_some(E::NESTED));
    E::fill_msr_map(maps.msrs, &msrs);
    let identity = Identity {
        mtrrs: extension.memory_types(),
        // The registers of the units that guard Vidar's memory are no memory, but the guest must not reach them either,
        // nor those of the I/O APIC of which Vidar keeps a pin.
        hidden: kept
            .iter()
            .cloned()
            .chain(dma.registers())
            .chain(pin.iter().map(|kept| kept.page.clone()))
            .collect(),
        watched,
        moved,
        locks: Locks::default(),
        alias: encryption.alias,
    };
    let before = frames.available();
    let shared = cpus.all.len() > 1;
    let memory = GuestMemory::new(frames, extension.largest_page(), identity, ram.clone(), shared)
        .map_err(|_| Refusal::TooMuchMemory)?;
    let physical_address_bits = cpuid::physical_address_bits() - encryption.narrower;
    let reader = reader(plan, memory.identity(), memory.decoy(), physical_address_bits);
    let second_stage = memory.root();
    let used = (before - memory.tables().available()) as u64;
    log::debug!("{} KiB of second-stage tables", (used * PAGE_SIZE) >> 10);
    let guest: &'static GuestReader = Box::leak(Box::new(reader));
    let machine = Machine {
        host: Host {
            kept: kept.leak(),
            lent: plan.lent().clone(),
            vendor: E::VENDOR,
            commit: debug::version::COMMIT,
            cpus: cpus.all,
            guard: (options.guard >= Guard::Cpu).then(Refusals::default),
            log: debug::log::read,
            last_log: debug::log::read_last,
            record: plan.shown().clone(),
            dma,
        },
        wanted: Wanted { check: options.check, debugger, trace: options.trace.is_some() },
        cpuid: Policy {
            features: extension.features(),
            hypervisor_bit: options.hypervisor_bit,
            narrower: encryption.narrower,
        },
        guard: options.guard,
        kernel: Box::leak(Box::new(KnownKernel::default())),
        locked: Locked::default(),
        msrs: msrs.leak(),
        startup: cpus.startup,
        replaced: cpus.low_memory.window(),
        watched,
        efer_allowed: extension.efer_allowed(),
        kept_pin: pin,
        ram,
        physical_address_bits,
        memory: Mutex::new(memory),
        touch_reported: AtomicBool::new(false),
        fill_reported: AtomicBool::new(false),
        host_root: Hpa(Cr3::read_raw().0.start_address().as_u64()),
        guest,
        load_microcode,
    };
    Ok((machine, Common { second_stage, maps, reader, guard: options.guard, calls: emulated }))
}
