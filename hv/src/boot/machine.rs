//! The guest's machine, on whichever extension.

#![expect(unsafe_code, reason = "the guest's memory is read for it")]

use alloc::vec::Vec;
use core::iter;
use core::ops::Range;
use core::sync::atomic::AtomicBool;

use spin::{Mutex, Once};

use super::cpus::Cpus;
use super::extension::Extension;
use super::info::BootInfo;
use super::landing;
use super::options::Options;
use super::refusal::Refusal;
use crate::arch::msr::Fault;
use crate::arch::{self, cpuid};
use crate::debug;
use crate::mem::addr::{Gpa, Hpa, PAGE_SIZE};
use crate::mem::host::Frames;
use crate::mem::identity::Identity;
use crate::mem::layout;
use crate::mem::moved::Moved;
use crate::mem::physical;
use crate::mem::ranges::RangeSet;
use crate::mem::walk::ReadGuest;
use crate::mem::window;
use crate::vmm::cpuid::Policy;
use crate::vmm::hypercall::Facts;
use crate::vmm::machine::{Machine, Startup};
use crate::vmm::memory::GuestMemory;
use crate::vmm::microcode::Update;
use crate::vmm::msr;

/// Where local APICs have their page when no system has moved it.
const APIC_PAGE: Gpa = Gpa(0xfee0_0000);

/// The guest's memory, to be read where a CPU of it has just read: so it does not matter if it is no RAM.
#[derive(Debug, Clone)]
pub struct Readable {
    /// Addresses that are in the direct map, with nothing of Vidar's among them: the first and their number. Most of the guest's
    /// code and page tables are there.
    plain: (u64, u64),
}

/// Where the direct map has everything but Vidar's region.
const LOW: Range<Hpa> = Hpa(0)..Hpa(4 << 30);
/// The addresses below that Vidar's pages for start-up IPIs are among.
const LEGACY_END: Hpa = Hpa(0x10_0000);

impl Readable {
    /// All of it that Vidar can reach.
    pub fn new() -> Self {
        let region = layout::region();
        let (below, above) = (LEGACY_END..region.start, region.end..LOW.end);
        let size = |range: &Range<Hpa>| range.end.0.saturating_sub(range.start.0);
        let plain = if size(&above) > size(&below) { above } else { below };
        Self { plain: (plain.start.0, size(&plain)) }
    }
}

/// What of memory above 4 GiB is in the direct map.
static HIGH: Once<RangeSet> = Once::new();

/// What of the guest's memory is elsewhere.
static MOVED: Once<Moved> = Once::new();

impl ReadGuest for Readable {
    #[inline]
    fn word(&self, address: Gpa) -> Option<u64> {
        let word = address.align_down(8).identity();
        let (start, size) = self.plain;
        let place = if word.0.wrapping_sub(start) < size { word } else { place(word)? };
        // SAFETY: the word is in the direct map, and reading it again does no more than the CPU did.
        Some(unsafe { physical::read_words::<1>(place)[0] })
    }
}

/// Where the guest's word at `word` is, if it is in the direct map.
#[cold]
fn place(word: Hpa) -> Option<Hpa> {
    if let Some(place) = MOVED.get().and_then(|moved| moved.place(word.identity())) {
        return Some(place);
    }
    let end = Hpa(word.0.checked_add(8)?);
    let hidden = layout::region().contains(&word);
    let high = || HIGH.get().is_some_and(|high| high.covers(&(word..end)));
    (!hidden && (LOW.contains(&word) || high())).then_some(word)
}

/// Loads an update of the microcode of this CPU: its pages are mapped while the CPU reads them.
fn load_microcode(update: Update<'_>) -> Result<(), Fault> {
    window::with_pages(update.cpu, update.pages, |start| {
        // SAFETY: the policy names the MSRs that load microcode alone. The CPU reads the update, refuses what is not signed by
        // its maker, and faults where memory ends, which the fix-up catches.
        unsafe { arch::msr::write_checked(update.msr, start.0 + update.offset) }
    })
}

/// Makes the guest's memory out of `frames`, and what else its CPUs have in common; fills the MSR map at `msr_map`. The guest's
/// RAM below 640 KiB is moved to `low_memory`, if that is there.
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
    low_memory: Option<Hpa>,
) -> Result<Machine<E::Format, Frames>, Refusal> {
    let region = layout::region();
    let kept: Vec<_> = iter::once(region.clone()).chain(info.kept.iter().cloned()).collect();
    let hidden: RangeSet = kept.iter().cloned().collect();
    let mut ram = info.memory.usable();
    ram.remove(&region);
    HIGH.call_once(|| ram.clone());
    let emulated = matches!(cpus.startup, Startup::Emulated { .. });
    let moved = low_memory.map(|to| MOVED.call_once(|| Moved::new(&ram, &landing::WINDOW, to)).clone());
    let watched = emulated.then_some(APIC_PAGE);
    let mut msrs = E::MSRS.to_vec();
    msrs.extend(emulated.then_some(msr::STARTUP));
    msrs.extend(cpuid::has_hypervisor().then_some(E::NESTED));
    E::fill_msr_map(msr_map, &msrs);
    let identity = Identity { mtrrs: extension.memory_types(), hidden, watched, moved };
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
        load_microcode,
    })
}

/// Moves the guest's pages that are to be elsewhere, and has each of theirs lead to the trampoline.
///
/// # Safety
/// The guest's memory has been filled, and no CPU executes anything in those pages.
pub unsafe fn lay_landing(trampoline: Option<u8>) {
    let Some(moved) = MOVED.get() else { return };
    let stub = landing::stub(trampoline);
    for page in moved.pages() {
        if let Some(to) = moved.place(page.identity()) {
            // SAFETY: the page is RAM of the guest's, its new place was allocated for it, and nobody uses either yet.
            unsafe {
                physical::copy(&(page..page + PAGE_SIZE), to);
                physical::write(page, &stub);
            }
        }
    }
}
