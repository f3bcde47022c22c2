//! All units of the machine, and whether they guard Vidar's memory.

use alloc::vec::Vec;
use core::ops::Range;

use spin::Mutex;
use vidar_abi::{DmaFault, DmaState};

use super::plan::Obstacle;
use super::unit::Unit;
use crate::mem::addr::{Gpa, Hpa};

/// The guard of Vidar's memory against devices: the units that do it, or the reason why none does.
pub struct DmaGuard {
    state: DmaState,
    /// The units that the machine has, as far as firmware lists them.
    count: usize,
    units: Vec<(Range<Hpa>, Mutex<Unit>)>,
}

/// Has each unit translate by the tables at `root`. If one does not, those that have begun are released, and the others
/// stay as firmware has left them.
///
/// # Errors
/// [`Obstacle::Stuck`] if a unit does not do as it is told.
pub fn begin(units: &mut [Unit], root: Hpa) -> Result<(), Obstacle> {
    for index in 0..units.len() {
        if let Some(Err(obstacle)) = units.get_mut(index).map(|unit| unit.guard(root)) {
            units.iter_mut().take(index + 1).for_each(Unit::release);
            return Err(obstacle);
        }
    }
    Ok(())
}

impl DmaGuard {
    /// Returns the guard of a machine with `count` units, which do not guard Vidar's memory.
    pub const fn open(state: DmaState, count: usize) -> Self {
        Self { state, count, units: Vec::new() }
    }

    /// Returns the guard by these units.
    pub fn by(units: Vec<Unit>) -> Self {
        let posts = units.iter().any(|unit| unit.capability().posts_interrupts());
        let state = if posts { DmaState::GuardedFromDevices } else { DmaState::Guarded };
        let units: Vec<_> = units.into_iter().map(|unit| (unit.registers(), Mutex::new(unit))).collect();
        Self { state, count: units.len(), units }
    }

    /// Returns whether Vidar's memory is guarded.
    pub const fn state(&self) -> DmaState {
        self.state
    }

    /// Returns the number of units.
    pub const fn count(&self) -> usize {
        self.count
    }

    /// Returns the registers of the units that guard Vidar's memory, whole pages.
    pub fn registers(&self) -> impl Iterator<Item = Range<Hpa>> {
        self.units.iter().map(|(registers, _)| registers.clone())
    }

    /// Returns the unit that has a register at `address`, and the offset of the register.
    pub fn find(&self, address: Gpa) -> Option<(&Mutex<Unit>, usize)> {
        let address = address.identity();
        let (registers, unit) = self.units.iter().find(|(registers, _)| registers.contains(&address))?;
        Some((unit, (address.0 - registers.start.0) as usize))
    }

    /// Returns the number of faults so far, and the kept one with this index among those of all units.
    #[cold]
    pub fn fault(&self, index: u64) -> (u64, Option<DmaFault>) {
        let (mut count, mut before, mut found) = (0, 0, None);
        for (_, unit) in &self.units {
            let mut unit = unit.lock();
            let faults = unit.faults();
            count += faults.count();
            for fault in faults.last() {
                if before == index {
                    found = Some(fault);
                }
                before += 1;
            }
        }
        (count, found)
    }
}
