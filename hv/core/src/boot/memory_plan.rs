//! How the machine's memory is divided: what Vidar keeps, and what the guest gets.

use alloc::vec::Vec;
use core::ops::Range;

use crate::mem::addr::Hpa;
use crate::mem::map::MemoryMap;
use crate::mem::ranges::RangeSet;

/// The division of memory. It begins with the region of Vidar's image, and the boot order keeps more where that is too small.
#[derive(Debug, Clone)]
pub struct MemoryPlan<'a> {
    free: MemoryMap<'a>,
    kept: Vec<Range<Hpa>>,
}

impl<'a> MemoryPlan<'a> {
    /// The plan for a machine with this memory map, in which Vidar keeps `region`.
    pub fn new(firmware: &MemoryMap<'a>, region: Range<Hpa>) -> Self {
        Self { free: firmware.clone(), kept: Vec::from([region]) }
    }

    /// Keeps `range` from the guest, and logs why.
    pub fn keep(&mut self, range: Range<Hpa>, why: &str) {
        log::info!("keeps {} to {} as well, {why}", range.start, Hpa(range.end.0.saturating_sub(1)));
        self.free = self.free.reserved(&range);
        self.kept.push(range);
    }

    /// All that Vidar keeps: the region of the image first.
    pub fn kept(&self) -> &[Range<Hpa>] {
        &self.kept
    }

    /// Firmware's memory map, in which what Vidar keeps beside the region of its image is reserved.
    pub fn beside_region(&self) -> &MemoryMap<'a> {
        &self.free
    }

    /// The memory map that the guest is given: firmware's map, in which all that Vidar keeps is reserved.
    pub fn guest_map(&self) -> MemoryMap<'a> {
        self.kept.first().map_or_else(|| self.free.clone(), |region| self.free.reserved(region))
    }

    /// The RAM that the guest may use.
    pub fn guest_ram(&self) -> RangeSet {
        let mut ram = self.free.usable();
        self.kept.iter().for_each(|kept| ram.remove(kept));
        ram
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mem::map::{MemoryKind, MemoryRegion};

    #[test]
    fn the_guest_gets_what_is_not_kept() {
        let ram = MemoryRegion { range: Hpa(0)..Hpa(0x80_0000), kind: MemoryKind::Usable };
        let firmware = MemoryMap::from_regions([ram]);
        let mut plan = MemoryPlan::new(&firmware, Hpa(0x20_0000)..Hpa(0x40_0000));
        plan.keep(Hpa(0x60_0000)..Hpa(0x80_0000), "in a test");
        let expected = [Hpa(0)..Hpa(0x20_0000), Hpa(0x40_0000)..Hpa(0x60_0000)];
        assert_eq!(&*plan.guest_ram(), expected);
        assert_eq!(&*plan.guest_map().usable(), expected);
        assert_eq!(&*plan.beside_region().usable(), [Hpa(0)..Hpa(0x60_0000)]);
        assert_eq!(plan.kept(), [Hpa(0x20_0000)..Hpa(0x40_0000), Hpa(0x60_0000)..Hpa(0x80_0000)]);
    }
}
