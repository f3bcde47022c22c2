//! The division of the machine's memory: what Vidar keeps, and what the guest gets.

use alloc::vec::Vec;
use core::ops::Range;

use crate::mem::addr::Hpa;
use crate::mem::map::MemoryMap;
use crate::mem::ranges::RangeSet;

/// The division of memory. Vidar keeps the region of its image, and the boot order adds more where that is too small.
#[derive(Debug, Clone)]
pub struct MemoryPlan<'a> {
    free: MemoryMap<'a>,
    kept: Vec<Range<Hpa>>,
    shown: Range<Hpa>,
    lent: Range<Hpa>,
}

impl<'a> MemoryPlan<'a> {
    /// Returns the plan for a machine with this memory map, in which Vidar keeps only `region`.
    pub fn new(firmware: &MemoryMap<'a>, region: Range<Hpa>) -> Self {
        Self {
            free: firmware.clone(),
            kept: Vec::from([region]),
            shown: Hpa(0)..Hpa(0),
            lent: Hpa(0)..Hpa(0),
        }
    }

    /// Keeps `range` for Vidar, and logs it with the reason `why`.
    ///
    /// # Panics
    /// If a memory map cannot hold another reserved range: [`MemoryMap::reserved`].
    pub fn keep(&mut self, range: Range<Hpa>, why: &str) {
        log::info!("keeps {} to {} as well, {why}", range.start, Hpa(range.end.0.saturating_sub(1)));
        self.free = self.free.reserved(&range);
        self.kept.push(range);
    }

    /// Reserves `range` in what the guest is told of memory. Vidar has written something there that the guest's CPUs
    /// execute without its knowledge, so it is the guest's memory all the same. Logs it with the reason `why`. Only one
    /// range can be lent.
    ///
    /// # Panics
    /// As [`MemoryPlan::show`].
    pub fn lend(&mut self, range: Range<Hpa>, why: &str) {
        log::info!("reserves {} to {}, {why}", range.start, Hpa(range.end.0.saturating_sub(1)));
        self.free = self.free.reserved(&range);
        self.lent = range;
    }

    /// Reserves `range` in what the guest is told of memory. Vidar has written something there that the guest may read,
    /// so it is the guest's memory all the same. Only one range can be shown.
    ///
    /// # Panics
    /// If a memory map cannot hold another reserved range: [`MemoryMap::reserved`].
    pub fn show(&mut self, range: Range<Hpa>) {
        self.free = self.free.reserved(&range);
        self.shown = range;
    }

    /// Shows `range` to the guest, if there is one and `attempt` succeeds with it, and otherwise tries again without.
    /// The attempt is to place the guest's kernel and initrd, which matter more.
    ///
    /// # Errors
    /// What `attempt` returns without the range.
    ///
    /// # Panics
    /// As [`MemoryPlan::show`].
    pub fn show_if_it_fits<T, E>(
        &mut self,
        range: Option<Range<Hpa>>,
        attempt: impl Fn(&Self) -> Result<T, E>,
    ) -> Result<T, E> {
        let Some(range) = range else { return attempt(self) };
        let mut with = self.clone();
        with.show(range);
        if let Ok(made) = attempt(&with) {
            *self = with;
            return Ok(made);
        }
        let made = attempt(self)?;
        log::warn!(
            "the log of the last start is not in /sys/fs/pstore, since the guest needs that memory; `vidarctl log --last` has it"
        );
        Ok(made)
    }

    /// Returns the range that is shown to the guest. It is empty if there is none.
    pub const fn shown(&self) -> &Range<Hpa> {
        &self.shown
    }

    /// Returns the range that is lent to the guest. It is empty if there is none.
    pub const fn lent(&self) -> &Range<Hpa> {
        &self.lent
    }

    /// Returns all ranges that are reserved in what the guest is told of memory, beside what firmware reserves.
    pub fn reserved(&self) -> impl Iterator<Item = Range<Hpa>> {
        self.kept.iter().chain([&self.shown, &self.lent]).filter(|range| !range.is_empty()).cloned()
    }

    /// Returns all ranges that Vidar keeps, the region of the image first.
    pub fn kept(&self) -> &[Range<Hpa>] {
        &self.kept
    }

    /// Returns the firmware's memory map with everything reserved that Vidar keeps, except for the region of its image.
    pub fn beside_region(&self) -> &MemoryMap<'a> {
        &self.free
    }

    /// Returns the memory map for the guest: the firmware's map with everything reserved that Vidar keeps.
    pub fn guest_map(&self) -> MemoryMap<'a> {
        self.kept.first().map_or_else(|| self.free.clone(), |region| self.free.reserved(region))
    }

    /// Returns the RAM that the guest may use.
    pub fn guest_ram(&self) -> RangeSet {
        let mut ram = self.free.usable();
        ram.insert(self.shown.clone());
        ram.insert(self.lent.clone());
        self.kept.iter().for_each(|kept| ram.remove(kept));
        ram
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mem::map::{MemoryKind, MemoryRegion};

    #[test]
    fn guest_gets_all_memory_that_vidar_does_not_keep() {
        let ram = MemoryRegion { range: Hpa(0)..Hpa(0x80_0000), kind: MemoryKind::Usable };
        let firmware = MemoryMap::from_regions([ram]);
        let mut plan = MemoryPlan::new(&firmware, Hpa(0x20_0000)..Hpa(0x40_0000));
        plan.keep(Hpa(0x60_0000)..Hpa(0x80_0000), "in a test");
        let expected = [Hpa(0)..Hpa(0x20_0000), Hpa(0x40_0000)..Hpa(0x60_0000)];
        assert_eq!(&*plan.guest_ram(), expected);
        assert_eq!(&*plan.guest_map().usable(), expected);
        assert_eq!(&*plan.beside_region().usable(), [Hpa(0)..Hpa(0x60_0000)]);
        let kept = [Hpa(0x20_0000)..Hpa(0x40_0000), Hpa(0x60_0000)..Hpa(0x80_0000)];
        assert_eq!(plan.kept(), kept);
        assert!(plan.reserved().eq(kept));
    }

    #[test]
    fn memory_that_is_shown_is_the_guests_but_not_told_as_usable() {
        let ram = MemoryRegion { range: Hpa(0)..Hpa(0x80_0000), kind: MemoryKind::Usable };
        let firmware = MemoryMap::from_regions([ram]);
        let mut plan = MemoryPlan::new(&firmware, Hpa(0x20_0000)..Hpa(0x40_0000));
        plan.show(Hpa(0x7f_8000)..Hpa(0x80_0000));
        assert_eq!(&*plan.guest_ram(), [Hpa(0)..Hpa(0x20_0000), Hpa(0x40_0000)..Hpa(0x80_0000)]);
        assert_eq!(&*plan.guest_map().usable(), [Hpa(0)..Hpa(0x20_0000), Hpa(0x40_0000)..Hpa(0x7f_8000)]);
        assert_eq!(plan.kept().len(), 1);
        assert!(plan.reserved().eq([Hpa(0x20_0000)..Hpa(0x40_0000), Hpa(0x7f_8000)..Hpa(0x80_0000)]));
    }

    #[test]
    fn memory_that_is_lent_is_the_guests_beside_what_is_shown() {
        let ram = MemoryRegion { range: Hpa(0)..Hpa(0x80_0000), kind: MemoryKind::Usable };
        let firmware = MemoryMap::from_regions([ram]);
        let mut plan = MemoryPlan::new(&firmware, Hpa(0x20_0000)..Hpa(0x40_0000));
        plan.lend(Hpa(0x9_e000)..Hpa(0x9_f000), "in a test");
        plan.show(Hpa(0x7f_8000)..Hpa(0x80_0000));
        assert_eq!(&*plan.guest_ram(), [Hpa(0)..Hpa(0x20_0000), Hpa(0x40_0000)..Hpa(0x80_0000)]);
        let usable = [Hpa(0)..Hpa(0x9_e000), Hpa(0x9_f000)..Hpa(0x20_0000), Hpa(0x40_0000)..Hpa(0x7f_8000)];
        assert_eq!(&*plan.guest_map().usable(), usable);
        assert_eq!(plan.reserved().count(), 3);
    }

    #[test]
    fn memory_is_shown_only_if_the_guest_fits_beside_it() {
        let ram = MemoryRegion { range: Hpa(0)..Hpa(0x80_0000), kind: MemoryKind::Usable };
        let firmware = MemoryMap::from_regions([ram]);
        let plan = MemoryPlan::new(&firmware, Hpa(0x20_0000)..Hpa(0x40_0000));
        let record = Hpa(0x7f_8000)..Hpa(0x80_0000);
        // A guest that needs this much memory in one piece above Vidar's.
        let guest = |size| {
            move |plan: &MemoryPlan<'_>| {
                let free = Hpa(0x40_0000)..Hpa(0x80_0000);
                plan.beside_region().usable().lowest_fit(size, 0x1000, &free).ok_or("no place")
            }
        };
        for (size, place, shown) in [
            (0x3f_8000, Ok(Hpa(0x40_0000)), Some(&record)),
            (0x3f_9000, Ok(Hpa(0x40_0000)), None),
            (0x40_1000, Err("no place"), None),
        ] {
            let mut plan = plan.clone();
            assert_eq!(plan.show_if_it_fits(Some(record.clone()), guest(size)), place);
            assert_eq!(Some(plan.shown()).filter(|shown| !shown.is_empty()), shown);
        }
    }
}
