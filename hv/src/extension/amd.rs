//! AMD-V as the boot order's [`Extension`].

#![expect(unsafe_code, reason = "the virtual CPU is created, and the MSR map is filled")]

use core::convert::Infallible;

use vidar_abi::Vendor;
use vidar_core::boot::refusal::{self, Difference, Names, Refusal};
use vidar_core::mem::addr::{Hpa, PAGE_SIZE, PageSize};
use vidar_core::mem::encryption::Encryption;
use vidar_core::mem::mtrr::{Combination, Mtrrs};
use vidar_core::policy::features::Features;
use vidar_core::policy::msr::Row;
use vidar_core::svm::capabilities::Capabilities;
use vidar_core::svm::msrs::{GUARDED, MSRS, NESTED};
use vidar_core::svm::permissions_map;
use vidar_core::vmm::entry::Begin;

use super::Extension;
use crate::arch::{cpuid, msr};
use crate::host::physical;
use crate::host::tables::Frames;
use crate::host::vcpu::{Common, Own};
use crate::svm;
use crate::svm::cpu::SvmCpu;
use crate::svm::enable::{self, Unavailable};

/// AMD-V, with the capabilities of a CPU.
#[derive(Clone)]
pub struct Svm(Capabilities);

impl Extension for Svm {
    const VENDOR: Vendor = Vendor::Svm;
    const NAMES: Names = refusal::SVM;
    const MSRS: &'static [&'static [Row]] = MSRS;
    const NESTED: &'static [Row] = NESTED;
    const GUARDED: &'static [Row] = GUARDED;
    type Frames = svm::cpu::Frames;
    type Cpu = SvmCpu;

    fn probe() -> Result<Self, Refusal> {
        let capabilities = enable::probe().map_err(|unavailable| match unavailable {
            Unavailable::LockedOff => Refusal::LockedOff(refusal::SVM),
            Unavailable::Missing(what) => Refusal::Missing { extension: refusal::SVM, what },
        })?;
        Ok(Self(capabilities))
    }

    fn difference(&self, other: &Self) -> Option<Difference> {
        Difference::find(self.0.fields(), other.0.fields())
    }

    fn describe(&self) {
        let next_rip = if self.0.nrip_save { ", next RIP" } else { "" };
        log::info!("AMD-V with nested pages up to {}{next_rip}", self.largest_page());
    }

    fn wait_for_sipi(&self) -> Option<Infallible> {
        None // AMD-V has no activity state in which a guest waits
    }

    fn leaves_init_to_the_cpu(&self) -> bool {
        true
    }

    fn survives_init(&self) -> bool {
        enable::redirects_init()
    }

    fn largest_page(&self) -> PageSize {
        if cpuid::has_1g_pages() { PageSize::Size1G } else { PageSize::Size2M }
    }

    fn memory_types(&self) -> Mtrrs {
        let read = |index| msr::read_checked(index).unwrap_or(0);
        let own = if cpuid::has_mtrrs() {
            Mtrrs::read(cpuid::physical_address_bits() - self.encryption().narrower, read)
        } else {
            Mtrrs::write_back()
        };
        own.combined(Some(Combination::from_raw(read(msr::SYSCFG), read(msr::TOP_MEM2))))
    }

    fn encryption(&self) -> Encryption {
        let syscfg = msr::read_checked(msr::SYSCFG).unwrap_or(0);
        Encryption::of_amd(|leaf| cpuid::cpuid(leaf, 0), syscfg)
    }

    fn features(&self) -> Features {
        Features::all() // none of them needs a control in the VMCB
    }

    fn efer_allowed(&self) -> u64 {
        enable::efer_allowed()
    }

    fn msr_map(frames: &mut Frames) -> Option<Hpa> {
        frames.allocate_run(permissions_map::BYTES / PAGE_SIZE as usize)
    }

    fn fill_msr_map(map: Hpa, tables: &[&[Row]]) {
        // SAFETY: `msr_map` has allocated the frames for this map, and no CPU uses it yet.
        unsafe { physical::write(map, &permissions_map::derive(tables)) };
    }

    fn cpu(
        &self,
        common: &Common,
        own: &Own<'_, Self::Frames>,
        begin: Begin<Infallible>,
    ) -> Result<SvmCpu, Refusal> {
        // SAFETY: `probe` has found the capabilities, which are alike on all CPUs. The frames were allocated for this
        // CPU, and the second stage does not map Vidar's memory.
        Ok(unsafe { SvmCpu::new(self.0, common, own, begin) })
    }
}
