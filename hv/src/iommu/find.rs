//! The units of this machine, from their discovery to the moment when they guard Vidar's memory.

#![expect(unsafe_code, reason = "firmware's word is taken for where the units are")]

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ops::Range;

use vidar_abi::DmaState;
use vidar_core::boot::memory_plan::MemoryPlan;
use vidar_core::firmware::acpi::Table;
use vidar_core::firmware::{dmar, ivrs};
use vidar_core::iommu::capability::Capability;
use vidar_core::iommu::guard::{self, DmaGuard};
use vidar_core::iommu::plan::{Obstacle, Plan, check_place, holes, plan};
use vidar_core::iommu::tables::build;
use vidar_core::iommu::unit::Unit;
use vidar_core::mem::addr::Hpa;
use vidar_core::mem::moved::MovedPages;

use super::registers::{self, Registers};
use crate::arch::cpuid::physical_address_bits;
use crate::arch::instructions::wbinvd;
use crate::firmware::tables::Tables;
use crate::host::memory::HostMemory;

/// The units of the machine.
pub enum Units {
    /// Vidar does not ask them to guard its memory. The number is how many there are.
    Open(DmaState, usize),
    /// Vidar asks for the guard, but the machine has no unit that Vidar can drive. The number is how many units there
    /// are.
    Absent(DmaState, usize),
    /// Vidar asks for the guard, but something stands in the way. The number is how many units there are.
    Failed(Obstacle, usize),
    /// Vidar asks them to guard its memory.
    Asked {
        /// The units.
        units: Vec<Unit>,
        /// The memory that firmware's devices need.
        reserved: Vec<Range<Hpa>>,
    },
}

impl Units {
    /// Finds the units that firmware lists. If they are `asked` to guard Vidar's memory, maps their registers, which
    /// cannot be in RAM or in what `memory_plan` keeps.
    pub fn find(
        tables: &Tables<'_>,
        asked: bool,
        memory_plan: &MemoryPlan<'_>,
        memory: &mut HostMemory,
    ) -> Self {
        let Some(list) = tables.find(*b"DMAR").next() else {
            let amd = tables.find(*b"IVRS").next();
            let amd = amd.map(|list| ivrs::parse(tables.in_place(list).bytes()).units.len());
            let (state, count) = amd.map_or((DmaState::NoIommu, 0), |count| (DmaState::Amd, count));
            return if asked { Self::Absent(state, count) } else { Self::Open(state, count) };
        };
        let dmar = dmar::parse(tables.in_place(list).bytes());
        let count = dmar.units.len();
        if !asked {
            return Self::Open(DmaState::NotAsked, count);
        }
        if let Some(damage) = dmar.damage {
            return Self::Failed(Obstacle::Damaged(damage), count);
        }
        if dmar.beyond > 0 {
            return Self::Failed(Obstacle::TooMany, count);
        }
        if let Some(segment) = dmar.open_segment() {
            return Self::Failed(Obstacle::Partial(segment), count);
        }
        let ram = memory_plan.beside_region().memory();
        let units = dmar.units.iter().map(|unit| {
            let most = unit.registers..Hpa(unit.registers.0.saturating_add(registers::MOST as u64));
            check_place(&most, physical_address_bits(), &ram, memory_plan.kept())?;
            // SAFETY: firmware's table says that a unit has its registers there. It is an address, and no RAM.
            let registers = unsafe { Registers::map(memory, unit.registers) };
            Unit::find(Box::new(registers.map_err(|_| Obstacle::NoMemory)?), unit.registers)
        });
        match units.collect::<Result<Vec<_>, _>>() {
            Ok(units) if units.is_empty() => Self::Absent(DmaState::NoIommu, 0),
            Ok(units) => Self::Asked { units, reserved: dmar.reserved },
            Err(obstacle) => Self::Failed(obstacle, count),
        }
    }

    /// Returns how many frames the tables of the units take at most, on a machine whose RAM ends at `ram_top`.
    pub fn frames(&self, ram_top: Hpa) -> u64 {
        let Self::Asked { units, .. } = self else { return 0 };
        /// The ranges that Vidar keeps, and pieces of moved memory below 640 KiB.
        const HOLES: u64 = 8;
        let planned = plan(&capabilities(units), ram_top, &[], &[]);
        planned.map_or(0, |plan| plan.frames(HOLES + units.len() as u64))
    }

    /// Has the units guard what `memory_plan` keeps, if they are asked to, and logs whether Vidar's memory is guarded.
    /// Devices find `moved` memory where the guest does.
    pub fn guard(
        self,
        tables: &Tables<'_>,
        memory_plan: &MemoryPlan<'_>,
        memory: &mut HostMemory,
        moved: Option<MovedPages>,
    ) -> DmaGuard {
        let (obstacle, count) = match self {
            Self::Open(state, count) => {
                log::info!("DMA: {state}");
                return DmaGuard::open(state, count);
            }
            Self::Absent(state, count) => {
                log::warn!("DMA: {state}; dma=guard has no effect");
                return DmaGuard::open(state, count);
            }
            Self::Failed(obstacle, count) => (obstacle, count),
            Self::Asked { mut units, reserved } => {
                match guard(&mut units, &reserved, memory_plan, memory, moved) {
                    Ok(plan) => return guarded(units, plan, tables),
                    Err(obstacle) => (obstacle, units.len()),
                }
            }
        };
        log::warn!("DMA: not guarded, although dma=guard is given: {obstacle}");
        DmaGuard::open(DmaState::Failed, count)
    }
}

fn capabilities(units: &[Unit]) -> Vec<Capability> {
    units.iter().map(Unit::capability).collect()
}

/// Builds the tables, and has each unit translate by them. If one does not, none does.
fn guard(
    units: &mut [Unit],
    reserved: &[Range<Hpa>],
    memory_plan: &MemoryPlan<'_>,
    memory: &mut HostMemory,
    moved: Option<MovedPages>,
) -> Result<Plan, Obstacle> {
    let kept = memory_plan.kept();
    let plan = plan(&capabilities(units), memory_plan.beside_region().ram_top(), reserved, kept)?;
    let holes = holes(kept, units.iter().map(Unit::registers));
    let root = build(&mut memory.frames, &plan, holes, moved)?;
    // Units that do not snoop the caches read memory.
    wbinvd();
    guard::begin(units, root).map(|()| plan)
}

/// Returns the guard by these units, and logs it.
fn guarded(units: Vec<Unit>, plan: Plan, tables: &Tables<'_>) -> DmaGuard {
    // The operating system could not guard memory from external devices by units without translation.
    let list = tables.find(*b"DMAR").next();
    if list.is_some_and(|list| dmar::withdraw_opt_in(&mut tables.in_place(list)).is_err()) {
        log::warn!("the firmware's list of IOMMUs (ACPI table DMAR) cannot be changed");
    }
    let guard = DmaGuard::by(units);
    log::info!("DMA: {}; IOMMUs: {}", guard.state(), guard.count());
    log::debug!("devices reach memory below {}, in pages of at most {}", plan.end, plan.largest);
    guard
}
