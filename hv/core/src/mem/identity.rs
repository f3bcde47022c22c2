//! What the second stage maps: the machine as it is, but for Vidar's own memory.
//!
//! The answer for an address follows from the address alone, so it does not matter whether a page is mapped
//! before the guest starts or on the guest's first touch, nor in which order.

use core::ops::Range;

use super::addr::{Gpa, Hpa, PAGE_SIZE, PageSize, overlaps};
use super::moved::Moved;
use super::mtrr::{MemoryType, Mtrrs};
use super::ranges::RangeSet;
use super::stage2::{Access, Format, MapError, SecondStage, TableMemory};

/// The identity map with the types of the MTRRs.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Where memory types come from.
    pub mtrrs: Mtrrs,
    /// Vidar's own memory, which no page of the map touches.
    pub hidden: RangeSet,
    /// A page of 4 KiB that the guest may not write to: writes to it are Vidar's to look at.
    pub watched: Option<Gpa>,
    /// Pages that are not where the guest has them, if there are any.
    pub moved: Option<Moved>,
    /// Bits of an address that choose no other memory, but how it is encrypted: with them set or not, it is the same.
    pub alias: u64,
}

impl Identity {
    /// The largest naturally aligned page around `gpa`, at most `largest`, that has one memory type and does not
    /// touch the hidden memory; `None` inside of it, and in the last page of the 64-bit space, which has no end.
    pub fn page_at(&self, gpa: Gpa, largest: PageSize) -> Option<(Gpa, PageSize, MemoryType)> {
        PageSize::DESCENDING.into_iter().filter(|&size| size <= largest).find_map(|size| {
            let base = gpa.align_down(size.bytes());
            let end = Hpa(base.0.checked_add(size.bytes())?);
            let page = base.identity()..end;
            // No page is so large that it has one of those bits inside.
            let place = self.place(base);
            let place = place..place + size.bytes();
            if self.hidden.overlaps(&place) || size != PageSize::Size4K && self.is_special(&place) {
                return None;
            }
            Some((base, size, self.uniform_type(page)?))
        })
    }

    /// The type of all of a page, if it has one, at whichever of its addresses: the MTRRs do not look at the alias bits.
    pub fn uniform_type(&self, page: Range<Hpa>) -> Option<MemoryType> {
        let start = self.place(page.start.identity());
        self.mtrrs.uniform_type(start..start + (page.end.0 - page.start.0))
    }

    /// Returns true if a page of 4 KiB in the range is not mapped as its neighbours are.
    fn is_special(&self, range: &Range<Hpa>) -> bool {
        let watched = |page: Gpa| overlaps(range, &(page.identity()..page.identity() + PAGE_SIZE));
        self.watched.is_some_and(watched) || self.moved.as_ref().is_some_and(|moved| moved.overlaps(range))
    }

    /// Returns true if the memory at `gpa` is hidden.
    pub fn hides(&self, gpa: Gpa) -> bool {
        self.hidden.contains(self.place(gpa))
    }

    /// The address without the bits that choose no other memory.
    const fn place(&self, gpa: Gpa) -> Hpa {
        Hpa(gpa.0 & !self.alias)
    }

    /// Maps every page that touches `range`, but for the hidden ones, and what lies in the same large pages.
    pub fn map_range<F: Format>(
        &self,
        stage2: &mut SecondStage<F>,
        memory: &mut impl TableMemory,
        range: Range<Gpa>,
    ) -> Result<(), MapError> {
        let mut gpa = range.start.align_down(PAGE_SIZE);
        let mut largest = stage2.largest();
        while gpa < range.end {
            let size = self.map_page(stage2, memory, gpa, largest)?.unwrap_or(PageSize::Size4K);
            match gpa.align_down(size.bytes()).0.checked_add(size.bytes()) {
                Some(next) => gpa = Gpa(next),
                None => break,
            }
            // A larger page that begins before here was tried where it begins.
            largest = PageSize::DESCENDING
                .into_iter()
                .find(|size| *size <= stage2.largest() && gpa.is_aligned(size.bytes()))
                .unwrap_or(PageSize::Size4K);
        }
        Ok(())
    }

    /// Maps the page around `gpa`, which the guest touched, and returns its size; `None` if it is hidden.
    pub fn map_on_touch<F: Format>(
        &self,
        stage2: &mut SecondStage<F>,
        memory: &mut impl TableMemory,
        gpa: Gpa,
    ) -> Result<Option<PageSize>, MapError> {
        let largest = stage2.largest();
        self.map_page(stage2, memory, gpa, largest)
    }

    fn map_page<F: Format>(
        &self,
        stage2: &mut SecondStage<F>,
        memory: &mut impl TableMemory,
        gpa: Gpa,
        largest: PageSize,
    ) -> Result<Option<PageSize>, MapError> {
        match self.page_at(gpa, largest) {
            Some((base, size, memory_type)) => {
                let watched = self.watched.is_some_and(|watched| watched.identity() == self.place(base));
                let access = if watched { Access::all() - Access::WRITE } else { Access::all() };
                let place = self.moved.as_ref().and_then(|moved| moved.place(self.place(gpa).identity()));
                stage2
                    .map_with(memory, gpa, place.unwrap_or(gpa.identity()), size, memory_type, access)
                    .map(Some)
            }
            None => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mem::mtrr::{IA32_MTRR_DEF_TYPE, IA32_MTRR_PHYSBASE0, IA32_MTRRCAP};

    #[test]
    fn hidden_memory_is_hidden_at_each_of_its_addresses() {
        const ALIAS: u64 = 1 << 47;
        let hidden = Hpa(0x20_0000)..Hpa(0x40_0000);
        let map = Identity {
            mtrrs: Mtrrs::write_back(),
            hidden: [hidden].into(),
            watched: Some(Gpa(0xfee0_0000)),
            moved: None,
            alias: ALIAS,
        };
        let page =
            |address| map.page_at(Gpa(address), PageSize::Size1G).map(|(base, size, _)| (base.0, size));
        for address in [0x20_0000, ALIAS | 0x20_0000, 0x3f_ffff, ALIAS | 0x3f_ffff] {
            assert_eq!(page(address), None, "{address:#x}");
            assert!(map.hides(Gpa(address)));
        }
        assert_eq!(page(ALIAS | 0x40_0000), Some((ALIAS | 0x40_0000, PageSize::Size2M)));
        assert_eq!(page(ALIAS | 0x4000_0000), Some((ALIAS | 0x4000_0000, PageSize::Size1G)));
        assert_eq!(
            page(ALIAS | 0xfee0_0300),
            Some((ALIAS | 0xfee0_0000, PageSize::Size4K)),
            "the watched page"
        );
    }

    #[test]
    fn types_are_those_of_the_memory_at_each_of_its_addresses() {
        const ALIAS: u64 = 1 << 47;
        // All is write-back, but the last 512 MiB below 4 GiB.
        let mtrrs = Mtrrs::read(48, |index| match index {
            IA32_MTRRCAP => 1,
            IA32_MTRR_DEF_TYPE => 0x806,
            IA32_MTRR_PHYSBASE0 => 0xe000_0000,
            _ => 0xffff_e000_0800,
        });
        let map = Identity { mtrrs, hidden: RangeSet::new(), watched: None, moved: None, alias: ALIAS };
        let page = |address| {
            map.page_at(Gpa(address), PageSize::Size1G).map(|(_, size, memory_type)| (size, memory_type))
        };
        for alias in [0, ALIAS] {
            assert_eq!(page(alias | 0x8000_0000), Some((PageSize::Size1G, MemoryType::WriteBack)));
            assert_eq!(page(alias | 0xc000_0000), Some((PageSize::Size2M, MemoryType::WriteBack)));
            assert_eq!(page(alias | 0xe000_0000), Some((PageSize::Size2M, MemoryType::Uncacheable)));
        }
    }
}
