//! Intel VT-x as the boot order's [`Extension`].

#![expect(unsafe_code, reason = "the virtual CPU is created, and the MSR map is filled")]

use alloc::format;

use vidar_abi::Vendor;
use vidar_core::boot::refusal::{self, Difference, Names, Refusal};
use vidar_core::mem::addr::{Hpa, PAGE_SIZE, PageSize};
use vidar_core::mem::encryption::Encryption;
use vidar_core::mem::mtrr::Mtrrs;
use vidar_core::policy::features::Features;
use vidar_core::policy::msr::Row;
use vidar_core::vmm::entry::Begin;
use vidar_core::vmx::capabilities::{Capabilities, WaitForSipi};
use vidar_core::vmx::controls::secondary;
use vidar_core::vmx::msr_bitmap;
use vidar_core::vmx::msrs::{GUARDED, MSRS, NESTED};

use super::Extension;
use crate::arch::cpuid;
use crate::arch::msr::{self, EFER_LME, EFER_NXE, EFER_SCE};
use crate::host::physical;
use crate::host::tables::Frames;
use crate::host::vcpu::{Common, Own};
use crate::vmx;
use crate::vmx::cpu::VmxCpu;
use crate::vmx::enable::{self, Unavailable};
use crate::vmx::vmcs::SetupError;

/// VT-x, with the capabilities of a CPU.
#[derive(Clone)]
pub struct Vmx(Capabilities);

impl Extension for Vmx {
    const VENDOR: Vendor = Vendor::Vmx;
    const NAMES: Names = refusal::VMX;
    const MSRS: &'static [&'static [Row]] = MSRS;
    const NESTED: &'static [Row] = NESTED;
    const GUARDED: &'static [Row] = GUARDED;
    type Frames = vmx::cpu::Frames;
    type Cpu = VmxCpu;

    fn probe() -> Result<Self, Refusal> {
        let capabilities = enable::probe().map_err(|unavailable| match unavailable {
            Unavailable::Absent => Refusal::NoVirtualization,
            Unavailable::LockedOff => Refusal::LockedOff(refusal::VMX),
            Unavailable::Missing(what) => Refusal::Missing { extension: refusal::VMX, what },
        })?;
        Ok(Self(capabilities))
    }

    fn difference(&self, other: &Self) -> Option<Difference> {
        Difference::find(self.0.fields(), other.0.fields())
    }

    fn describe(&self) {
        let vpid = if self.0.has(secondary::VPID) { ", VPID" } else { "" };
        let pages = self.0.largest_page;
        log::info!("VT-x with EPT pages up to {pages}{vpid}, unrestricted guest");
    }

    fn wait_for_sipi(&self) -> Option<WaitForSipi> {
        self.0.wait_for_sipi
    }

    fn leaves_init_to_the_cpu(&self) -> bool {
        false // an INIT always exits in VMX non-root operation, and is blocked in root operation
    }

    fn survives_init(&self) -> bool {
        true
    }

    fn largest_page(&self) -> PageSize {
        self.0.largest_page
    }

    fn memory_types(&self) -> Mtrrs {
        if cpuid::has_mtrrs() {
            Mtrrs::read(cpuid::physical_address_bits(), |index| msr::read_checked(index).unwrap_or(0))
        } else {
            Mtrrs::write_back()
        }
    }

    fn encryption(&self) -> Encryption {
        let activated = msr::read_checked(msr::TME_ACTIVATE).unwrap_or(0);
        Encryption::of_intel(activated, cpuid::physical_address_bits())
    }

    fn features(&self) -> Features {
        self.0.features
    }

    fn efer_allowed(&self) -> u64 {
        EFER_SCE | EFER_LME | EFER_NXE // every 64-bit CPU of Intel has these bits
    }

    fn msr_map(frames: &mut Frames) -> Option<Hpa> {
        frames.allocate_run(2)
    }

    fn fill_msr_map(map: Hpa, tables: &[&[Row]]) {
        // SAFETY: `msr_map` has allocated the two frames for the bitmaps, and no CPU uses them yet.
        unsafe {
            physical::write(map, &msr_bitmap::derive(tables, false));
            physical::write(map + PAGE_SIZE, &msr_bitmap::derive(tables, true));
        }
    }

    fn cpu(
        &self,
        common: &Common,
        own: &Own<'_, Self::Frames>,
        begin: Begin<WaitForSipi>,
    ) -> Result<VmxCpu, Refusal> {
        // SAFETY: `probe` has found the capabilities on this CPU. The frames were allocated for it, and the second
        // stage does not map Vidar's memory.
        unsafe { VmxCpu::new(self.0.clone(), common, own, begin) }.map_err(|error| {
            let how = match error {
                SetupError::Instruction(name, failure) => format!("{name}: {failure:?}"),
                SetupError::NoField(name) => format!("no VMCS field {name}"),
            };
            Refusal::Extension { extension: refusal::VMX, how }
        })
    }
}
