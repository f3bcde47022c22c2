//! AMD-V as the boot order's [`Extension`].

#![expect(unsafe_code, reason = "the virtual CPU is made here, and the guest's memory is read for it")]

use core::ops::Range;

use vidar_abi::Vendor;

use super::extension::Extension;
use super::refusal::{self, Refusal};
use crate::arch::cpuid;
use crate::arch::percpu::PerCpu;
use crate::arch::segments::Selectors;
use crate::mem::addr::{Gpa, Hpa, PAGE_SIZE, PageSize};
use crate::mem::host::Frames;
use crate::mem::map::MemoryMap;
use crate::mem::mtrr::Mtrrs;
use crate::mem::ranges::RangeSet;
use crate::mem::{layout, physical};
use crate::svm::capabilities::Capabilities;
use crate::svm::cpu::{CpuFrames, ReadGuest, SvmCpu};
use crate::svm::enable::{self, Unavailable};
use crate::svm::msrs::MSRS;
use crate::svm::npt::Npt;
use crate::svm::permissions_map;
use crate::vmm::cpuid::Features;
use crate::vmm::entry::EntryState;

/// AMD-V with its capabilities.
pub struct Svm(Capabilities);

impl Extension for Svm {
    const VENDOR: Vendor = Vendor::Svm;
    type Format = Npt;
    type Frames = CpuFrames;
    type Cpu = SvmCpu<Readable>;

    fn probe() -> Result<Self, Refusal> {
        let capabilities = enable::probe().map_err(|unavailable| match unavailable {
            Unavailable::LockedOff => Refusal::LockedOff(refusal::SVM),
            Unavailable::Missing(what) => Refusal::Missing { extension: refusal::SVM, what },
        })?;
        let svm = Self(capabilities);
        let next_rip = if capabilities.nrip_save { ", next RIP" } else { "" };
        log::info!("AMD-V with nested pages up to {}{next_rip}", svm.largest_page());
        Ok(svm)
    }

    fn largest_page(&self) -> PageSize {
        if cpuid::has_1g_pages() { PageSize::Size1G } else { PageSize::Size2M }
    }

    /// The CPU combines the MTRRs with what nested paging says, so that says nothing. AMD APM Vol. 2, 15.25.8 "Combining
    /// Memory Types, MTRRs".
    fn memory_types(&self) -> Mtrrs {
        Mtrrs::write_back()
    }

    fn features(&self) -> Features {
        Features::all() // none of them needs a control
    }

    fn cr4_allowed(&self) -> u64 {
        u64::MAX // writes of CR4 do not exit
    }

    fn efer_allowed(&self) -> u64 {
        enable::efer_allowed()
    }

    fn frames(frames: &mut Frames) -> Option<CpuFrames> {
        let cpu_frames = CpuFrames {
            permissions_map: frames.allocate_run(permissions_map::BYTES / PAGE_SIZE as usize)?,
            vmcb: frames.allocate()?,
            host: frames.allocate()?,
            host_save: frames.allocate()?,
        };
        let map = permissions_map::derive(MSRS);
        // SAFETY: the frames were allocated for this.
        unsafe { physical::write(cpu_frames.permissions_map, &map) };
        Some(cpu_frames)
    }

    fn cpu(
        self,
        frames: CpuFrames,
        root: Hpa,
        map: &MemoryMap,
        _: &Selectors,
        percpu: &'static PerCpu,
        state: &EntryState,
    ) -> Result<SvmCpu<Readable>, Refusal> {
        // SAFETY: the capabilities are this CPU's, whose segments and block are loaded; the frames were allocated for
        // it, and the second stage leaves out Vidar's region.
        Ok(unsafe { SvmCpu::new(self.0, frames, root, percpu, state, Readable::new(map)) })
    }
}

/// What is in the direct map and is not Vidar's.
pub struct Readable {
    hidden: Range<Hpa>,
    high: RangeSet,
}

impl Readable {
    const FOUR_GIB: Hpa = Hpa(4 << 30);

    fn new(map: &MemoryMap) -> Self {
        Self { hidden: layout::region(), high: map.usable() }
    }
}

impl ReadGuest for Readable {
    /// The CPU has just read the word to execute an instruction of the guest: so it does not matter if it is no RAM.
    fn word(&self, address: Gpa) -> Option<u64> {
        let word = address.align_down(8).identity();
        let there = word < Self::FOUR_GIB || self.high.covers(&(word..Hpa(word.0.checked_add(8)?)));
        // SAFETY: the word is in the direct map, and reading it again does no more than the CPU did.
        (there && !self.hidden.contains(&word)).then(|| unsafe { physical::read_words::<1>(word)[0] })
    }
}
