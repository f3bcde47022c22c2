//! Bringing VT-x up with the guest's memory, and running the guest.

#![expect(unsafe_code, reason = "the virtual CPU is made here, and the guest's RAM is read for it")]

use alloc::boxed::Box;
use alloc::format;
use core::sync::atomic::AtomicBool;

use spin::Mutex;
use vidar_abi::Vendor;

use super::options::Options;
use super::refusal::Refusal;
use crate::arch::percpu::PerCpu;
use crate::arch::segments::Selectors;
use crate::arch::{cpuid, msr};
use crate::debug;
use crate::mem::addr::{Gpa, PAGE_SIZE, PageSize};
use crate::mem::host::Frames;
use crate::mem::identity::Identity;
use crate::mem::layout;
use crate::mem::map::MemoryMap;
use crate::mem::mtrr::Mtrrs;
use crate::mem::physical;
use crate::vmm::control::{CR4_SMXE, CR4_VMXE};
use crate::vmm::cpuid::Policy;
use crate::vmm::entry::EntryState;
use crate::vmm::machine::Machine;
use crate::vmm::memory::GuestMemory;
use crate::vmm::msr::TABLE;
use crate::vmx::capabilities::{Capabilities, secondary};
use crate::vmx::cpu::{CpuFrames, SetupError, VmxCpu};
use crate::vmx::enable::{self, Unavailable};
use crate::vmx::ept::Ept;
use crate::vmx::msr_bitmap;

/// What VT-x can do here.
///
/// # Errors
/// [`Refusal`] where it cannot be used.
pub fn probe() -> Result<Capabilities, Refusal> {
    let capabilities = enable::probe().map_err(|unavailable| match unavailable {
        Unavailable::Absent => Refusal::NoVirtualization,
        Unavailable::LockedOff => Refusal::LockedOff,
        Unavailable::Missing(missing) => Refusal::Missing(missing),
    })?;
    let pages = if capabilities.largest_page == PageSize::Size1G { "1 GiB" } else { "2 MiB" };
    let vpid = if capabilities.has(secondary::VPID) { ", VPID" } else { "" };
    log::info!("VT-x with EPT pages up to {pages}{vpid}, unrestricted guest");
    Ok(capabilities)
}

/// The guest's machine on VT-x.
pub type IntelMachine = Machine<Ept, Frames>;

/// Takes what the boot CPU needs from `frames` and makes the guest's memory out of the rest.
///
/// # Errors
/// [`Refusal::TooMuchMemory`] where the frames do not suffice.
pub fn machine(
    mut frames: Frames,
    capabilities: &Capabilities,
    map: &MemoryMap,
    options: &Options,
    percpu: &'static PerCpu,
) -> Result<(IntelMachine, CpuFrames), Refusal> {
    let mut frame = || frames.allocate().ok_or(Refusal::TooMuchMemory);
    let cpu_frames = CpuFrames { vmxon: frame()?, vmcs: frame()?, msr_bitmap: frame()? };
    // SAFETY: the frame was allocated for this.
    unsafe { physical::write(cpu_frames.msr_bitmap, &msr_bitmap::derive(TABLE)) };

    let physical_address_bits = cpuid::physical_address_bits();
    let mtrrs = if cpuid::has_mtrrs() {
        Mtrrs::read(physical_address_bits, |index| msr::read_checked(index).unwrap_or(0))
    } else {
        Mtrrs::write_back()
    };
    let region = layout::region();
    let mut ram = map.usable();
    ram.remove(&region);
    let identity = Identity { mtrrs, hidden: region.clone() };
    let before = frames.available();
    let memory = GuestMemory::new(frames, capabilities.largest_page, identity, ram)
        .map_err(|_| Refusal::TooMuchMemory)?;
    let used = (before - memory.tables().available()) as u64;
    log::debug!("{} KiB of second-stage tables", (used * PAGE_SIZE) >> 10);
    let machine = Machine {
        vendor: Vendor::Vmx,
        cpuid: Policy { features: capabilities.features, hypervisor_bit: options.hypervisor_bit },
        cr4_allowed: capabilities.cr4_allowed & !(CR4_VMXE | CR4_SMXE),
        physical_address_bits,
        region,
        memory: Mutex::new(memory),
        touch_reported: AtomicBool::new(false),
        counters: Box::leak(Box::new([&percpu.counters])),
        log: debug::log::read,
        read_ram,
    };
    Ok((machine, cpu_frames))
}

/// The boot CPU's virtual CPU, in VMX operation.
///
/// # Errors
/// [`Refusal::Extension`] where the CPU does not do as its capabilities said.
pub fn cpu(
    capabilities: Capabilities,
    frames: CpuFrames,
    machine: &IntelMachine,
    selectors: &Selectors,
    percpu: &'static PerCpu,
    state: &EntryState,
) -> Result<VmxCpu, Refusal> {
    let root = machine.memory.lock().root();
    // SAFETY: the capabilities are this CPU's, as are selectors and block; the frames were allocated for it, and the
    // second stage leaves out Vidar's region.
    unsafe { VmxCpu::new(capabilities, frames, root, selectors, percpu, state) }.map_err(|error| {
        Refusal::Extension(match error {
            SetupError::Instruction(name, failure) => format!("{name}: {failure:?}"),
            SetupError::NoField(name) => format!("no VMCS field {name}"),
        })
    })
}

/// Four words of guest RAM. [`Machine`] asks only for what its memory says is RAM.
fn read_ram(address: Gpa) -> [u64; 4] {
    // SAFETY: RAM is in the direct map.
    unsafe { physical::read_words(address.identity()) }
}
