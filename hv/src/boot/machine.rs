//! The guest's machine, on whichever extension.

#![expect(unsafe_code, reason = "the guest's memory is read for it")]

use alloc::vec::Vec;
use core::iter;
use core::sync::atomic::AtomicBool;

use spin::{Mutex, Once};

use super::cpus::Cpus;
use super::extension::Extension;
use super::info::BootInfo;
use super::options::Options;
use super::refusal::Refusal;
use crate::arch::cpuid;
use crate::debug;
use crate::mem::addr::{Gpa, Hpa, PAGE_SIZE};
use crate::mem::host::Frames;
use crate::mem::identity::Identity;
use crate::mem::layout;
use crate::mem::physical;
use crate::mem::ranges::RangeSet;
use crate::mem::walk::ReadGuest;
use crate::vmm::cpuid::Policy;
use crate::vmm::hypercall::Facts;
use crate::vmm::machine::{Machine, Startup};
use crate::vmm::memory::GuestMemory;
use crate::vmm::msr;

/// Where local APICs have their page when no system has moved it.
const APIC_PAGE: Gpa = Gpa(0xfee0_0000);

/// The guest's memory, to be read where a CPU of it has just read: so it does not matter if it is no RAM.
#[derive(Debug, Clone)]
pub struct Readable {
    /// Vidar's region, which is not all in the direct map: its start and its bytes.
    hidden: (u64, u64),
}

impl Readable {
    /// All of it that Vidar can reach.
    pub fn new() -> Self {
        let region = layout::region();
        Self { hidden: (region.start.0, region.end.0 - region.start.0) }
    }
}

/// What of memory above 4 GiB is in the direct map.
static HIGH: Once<RangeSet> = Once::new();

impl ReadGuest for Readable {
    #[inline]
    fn word(&self, address: Gpa) -> Option<u64> {
        const FOUR_GIB: Hpa = Hpa(4 << 30);
        let word = address.align_down(8).identity();
        let (start, size) = self.hidden;
        let hidden = word.0.wrapping_sub(start) < size;
        // SAFETY: the word is in the direct map, and reading it again does no more than the CPU did.
        (!hidden && (word < FOUR_GIB || is_high(word))).then(|| unsafe { physical::read_words::<1>(word)[0] })
    }
}

#[cold]
fn is_high(word: Hpa) -> bool {
    let end = word.0.checked_add(8);
    HIGH.get().zip(end).is_some_and(|(high, end)| high.covers(&(word..Hpa(end))))
}

/// Makes the guest's memory out of `frames`, and what else its CPUs have in common; fills the MSR map at `msr_map`.
///
/// # Errors
/// [`Refusal::TooMuchMemory`] where the frames do not suffice.
pub fn make<E: Extension>(
    extension: &E,
    frames: Frames,
    info: &BootInfo<'_>,
    options: &Options,
    cpus: &Cpus<E>,
    msr_map: Hpa,
) -> Result<Machine<E::Format, Frames>, Refusal> {
    let region = layout::region();
    let kept: Vec<_> = iter::once(region.clone()).chain(info.kept.iter().cloned()).collect();
    let hidden: RangeSet = kept.iter().cloned().collect();
    let mut ram = info.memory.usable();
    ram.remove(&region);
    HIGH.call_once(|| ram.clone());
    let emulated = cpus.startup != Startup::Hardware;
    let watched = emulated.then_some(APIC_PAGE);
    let mut msrs = E::MSRS.to_vec();
    msrs.extend(emulated.then_some(msr::STARTUP));
    msrs.extend(cpuid::has_hypervisor().then_some(E::NESTED));
    E::fill_msr_map(msr_map, &msrs);
    let identity = Identity { mtrrs: extension.memory_types(), hidden, watched };
    let before = frames.available();
    let shared = cpus.all.len() > 1;
    let memory = GuestMemory::new(frames, extension.largest_page(), identity, ram, shared)
        .map_err(|_| Refusal::TooMuchMemory)?;
    let used = (before - memory.tables().available()) as u64;
    log::debug!("{} KiB of second-stage tables", (used * PAGE_SIZE) >> 10);
    Ok(Machine {
        facts: Facts { kept: kept.leak(), vendor: E::VENDOR, cpus: cpus.all, log: debug::log::read },
        cpuid: Policy { features: extension.features(), hypervisor_bit: options.hypervisor_bit },
        msrs: msrs.leak(),
        startup: cpus.startup,
        watched,
        cr4_allowed: extension.cr4_allowed(),
        efer_allowed: extension.efer_allowed(),
        physical_address_bits: cpuid::physical_address_bits(),
        memory: Mutex::new(memory),
        touch_reported: AtomicBool::new(false),
        read_word: |address| Readable::new().word(address),
    })
}
