//! The guest's machine, on whichever extension.

#![expect(unsafe_code, reason = "the guest's RAM is read for it")]

use alloc::boxed::Box;
use core::sync::atomic::AtomicBool;

use spin::Mutex;

use super::extension::Extension;
use super::options::Options;
use super::refusal::Refusal;
use crate::arch::cpuid;
use crate::arch::percpu::PerCpu;
use crate::debug;
use crate::mem::addr::{Gpa, PAGE_SIZE};
use crate::mem::host::Frames;
use crate::mem::identity::Identity;
use crate::mem::layout;
use crate::mem::map::MemoryMap;
use crate::mem::physical;
use crate::vmm::cpuid::Policy;
use crate::vmm::hypercall::Facts;
use crate::vmm::machine::Machine;
use crate::vmm::memory::GuestMemory;

/// Makes the guest's memory out of `frames`, and what else its CPUs have in common.
///
/// # Errors
/// [`Refusal::TooMuchMemory`] where the frames do not suffice.
pub fn make<E: Extension>(
    extension: &E,
    frames: Frames,
    map: &MemoryMap,
    options: &Options,
    percpu: &'static PerCpu,
) -> Result<Machine<E::Format, Frames>, Refusal> {
    let region = layout::region();
    let mut ram = map.usable();
    ram.remove(&region);
    let identity = Identity { mtrrs: extension.memory_types(), hidden: region.clone() };
    let before = frames.available();
    let memory = GuestMemory::new(frames, extension.largest_page(), identity, ram)
        .map_err(|_| Refusal::TooMuchMemory)?;
    let used = (before - memory.tables().available()) as u64;
    log::debug!("{} KiB of second-stage tables", (used * PAGE_SIZE) >> 10);
    Ok(Machine {
        facts: Facts {
            region,
            vendor: E::VENDOR,
            counters: Box::leak(Box::new([&percpu.counters])),
            log: debug::log::read,
        },
        cpuid: Policy { features: extension.features(), hypervisor_bit: options.hypervisor_bit },
        cr4_allowed: extension.cr4_allowed(),
        efer_allowed: extension.efer_allowed(),
        physical_address_bits: cpuid::physical_address_bits(),
        memory: Mutex::new(memory),
        touch_reported: AtomicBool::new(false),
        read_ram,
    })
}

/// Four words of guest RAM. [`Machine`] asks only for what its memory says is RAM.
fn read_ram(address: Gpa) -> [u64; 4] {
    // SAFETY: RAM is in the direct map.
    unsafe { physical::read_words(address.identity()) }
}
