//! The guest's machine, on whichever extension.

#![expect(unsafe_code, reason = "the guest's memory is read for it")]

use core::sync::atomic::AtomicBool;

use spin::{Mutex, Once};

use super::cpus::Cpus;
use super::extension::Extension;
use super::options::Options;
use super::refusal::Refusal;
use crate::arch::cpuid;
use crate::debug;
use crate::mem::addr::{Gpa, Hpa, PAGE_SIZE};
use crate::mem::host::Frames;
use crate::mem::identity::Identity;
use crate::mem::layout;
use crate::mem::map::MemoryMap;
use crate::mem::physical;
use crate::mem::ranges::RangeSet;
use crate::vmm::cpuid::Policy;
use crate::vmm::hypercall::Facts;
use crate::vmm::machine::{Machine, Startup};
use crate::vmm::memory::GuestMemory;
use crate::vmm::msr;

/// Where local APICs have their page when no system has moved it.
const APIC_PAGE: Gpa = Gpa(0xfee0_0000);

/// What Vidar reads of the guest's memory, where it has to.
struct Readable {
    hidden: RangeSet,
    high: RangeSet,
}

static READABLE: Once<Readable> = Once::new();

/// Makes the guest's memory out of `frames`, and what else its CPUs have in common; fills the MSR map at `msr_map`.
///
/// # Errors
/// [`Refusal::TooMuchMemory`] where the frames do not suffice.
pub fn make<E: Extension>(
    extension: &E,
    frames: Frames,
    map: &MemoryMap,
    options: &Options,
    cpus: &Cpus<E>,
    msr_map: Hpa,
) -> Result<Machine<E::Format, Frames>, Refusal> {
    let region = layout::region();
    let mut hidden = RangeSet::from([region.clone()]);
    cpus.page.iter().for_each(|page| hidden.insert(page.clone()));
    let mut ram = map.usable();
    ram.remove(&region);
    READABLE.call_once(|| Readable { hidden: hidden.clone(), high: map.usable() });
    let emulated = cpus.startup != Startup::Hardware;
    let watched = emulated.then_some(APIC_PAGE);
    let msrs = if emulated { [E::MSRS, &[msr::STARTUP]].concat() } else { E::MSRS.to_vec() };
    E::fill_msr_map(msr_map, &msrs);
    let identity = Identity { mtrrs: extension.memory_types(), hidden, watched };
    let before = frames.available();
    let shared = cpus.all.len() > 1;
    let memory = GuestMemory::new(frames, extension.largest_page(), identity, ram, shared)
        .map_err(|_| Refusal::TooMuchMemory)?;
    let used = (before - memory.tables().available()) as u64;
    log::debug!("{} KiB of second-stage tables", (used * PAGE_SIZE) >> 10);
    Ok(Machine {
        facts: Facts { region, vendor: E::VENDOR, cpus: cpus.all, log: debug::log::read },
        cpuid: Policy { features: extension.features(), hypervisor_bit: options.hypervisor_bit },
        msrs: msrs.leak(),
        startup: cpus.startup,
        watched,
        cr4_allowed: extension.cr4_allowed(),
        efer_allowed: extension.efer_allowed(),
        physical_address_bits: cpuid::physical_address_bits(),
        memory: Mutex::new(memory),
        touch_reported: AtomicBool::new(false),
        read_word,
    })
}

/// Reads the guest's memory where a CPU of it has just read: so it does not matter if it is no RAM.
pub fn read_word(address: Gpa) -> Option<u64> {
    const FOUR_GIB: Hpa = Hpa(4 << 30);
    let Readable { hidden, high } = READABLE.get()?;
    let word = address.align_down(8).identity();
    let there = word < FOUR_GIB || high.covers(&(word..Hpa(word.0.checked_add(8)?)));
    // SAFETY: the word is in the direct map, and reading it again does no more than the CPU did.
    (there && !hidden.contains(word)).then(|| unsafe { physical::read_words::<1>(word)[0] })
}
