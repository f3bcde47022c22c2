//! What the second stage maps: every guest-physical address to the host-physical address with the same number, except
//! for hidden and moved memory.
//!
//! The page for an address depends on that address alone. So pages may be mapped before the guest starts or on the
//! guest's first touch, in any order.

use core::ops::Range;

use super::addr::{Gpa, Hpa, PAGE_SIZE, PageSize, overlaps};
use super::locks::{Locks, Part};
use super::moved::MovedPages;
use super::mtrr::{MemoryType, Mtrrs};
use super::ranges::RangeSet;
use super::stage2::{Format, Leaf, MapError, PageAccess, SecondStage, TableMemory};

/// The identity map, with the memory types of the MTRRs.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The MTRRs, which determine the memory types.
    pub mtrrs: Mtrrs,
    /// Vidar's own memory, which no page of the map touches.
    pub hidden: RangeSet,
    /// A page of 4 KiB that the guest may not write to, so that Vidar sees the writes: the local APIC's page.
    pub watched: Option<Gpa>,
    /// Guest pages that lie at other host-physical addresses.
    pub moved: Option<MovedPages>,
    /// What the guest may not write to.
    pub locks: Locks,
    /// Address bits that select only how memory is encrypted: with them set or clear, an address selects the same
    /// memory.
    pub alias: u64,
}

impl Identity {
    /// Returns the largest naturally aligned page around `gpa`, at most `largest`, that has one memory type, is locked
    /// as a whole or not at all, and touches no hidden memory, with its address, size and type. Returns `None` if `gpa`
    /// is hidden, and in the last page of the 64-bit space, whose end is no address.
    pub fn page_at(&self, gpa: Gpa, largest: PageSize) -> Option<(Gpa, PageSize, MemoryType)> {
        PageSize::DESCENDING.into_iter().filter(|&size| size <= largest).find_map(|size| {
            let base = gpa.align_down(size.bytes());
            let end = Hpa(base.0.checked_add(size.bytes())?);
            let page = base.identity()..end;
            // No page is large enough to contain both values of an alias bit.
            let place = self.place(base);
            let place = place..place + size.bytes();
            if self.hidden.overlaps(&place) || size != PageSize::Size4K && self.is_special(&place) {
                return None;
            }
            if self.locked_part(page.clone()) == Part::Some {
                return None;
            }
            Some((base, size, self.uniform_type(page)?))
        })
    }

    /// Returns the memory type of a page if all of it has the same, and `None` otherwise. Alias bits in the address are
    /// ignored, as the MTRRs ignore them.
    pub fn uniform_type(&self, page: Range<Hpa>) -> Option<MemoryType> {
        let start = self.place(page.start.identity());
        self.mtrrs.uniform_type(start..start + (page.end.0 - page.start.0))
    }

    /// Returns how much of the page `page` is locked. Alias bits in the address are ignored.
    pub fn locked_part(&self, page: Range<Hpa>) -> Part {
        let start = self.place(page.start.identity()).identity();
        self.locks.part(&(start..start + (page.end.0 - page.start.0)))
    }

    /// Returns true if the range contains a watched or a moved page, which is not mapped like its neighbours.
    fn is_special(&self, range: &Range<Hpa>) -> bool {
        let watched = |page: Gpa| overlaps(range, &(page.identity()..page.identity() + PAGE_SIZE));
        self.watched.is_some_and(watched) || self.moved.as_ref().is_some_and(|moved| moved.overlaps(range))
    }

    /// Returns true if the memory at `gpa` is hidden.
    pub fn hides(&self, gpa: Gpa) -> bool {
        self.hidden.contains(self.place(gpa))
    }

    /// Returns the address without its alias bits.
    const fn place(&self, gpa: Gpa) -> Hpa {
        Hpa(gpa.0 & !self.alias)
    }

    /// Maps every page that touches `range`, except for hidden ones. Where a large page reaches beyond the range, all
    /// of it is mapped.
    ///
    /// # Errors
    /// A [`MapError`] if a page cannot be mapped; the pages before it stay mapped.
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
            // A larger page that begins before this address has been tried at its beginning.
            largest = PageSize::DESCENDING
                .into_iter()
                .find(|size| *size <= stage2.largest() && gpa.is_aligned(size.bytes()))
                .unwrap_or(PageSize::Size4K);
        }
        Ok(())
    }

    /// Maps the page around `gpa`, which the guest has touched, and returns its size; `None` if [`Identity::page_at`]
    /// has no page there.
    ///
    /// # Errors
    /// A [`MapError`] if the page cannot be mapped.
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
                let locked = self.locked_part(base.identity()..base.identity() + size.bytes()) != Part::None;
                let access =
                    if watched || locked { PageAccess::all() - PageAccess::WRITE } else { PageAccess::all() };
                let place = self.moved.as_ref().and_then(|moved| moved.place(self.place(gpa).identity()));
                let at = place.unwrap_or(gpa.identity());
                stage2.map(memory, gpa, Leaf { at, size, memory_type, access }).map(Some)
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
    fn hidden_memory_is_hidden_at_its_alias_addresses_too() {
        const ALIAS: u64 = 1 << 47;
        let hidden = Hpa(0x20_0000)..Hpa(0x40_0000);
        let map = Identity {
            mtrrs: Mtrrs::write_back(),
            hidden: [hidden].into(),
            watched: Some(Gpa(0xfee0_0000)),
            moved: None,
            locks: Locks::default(),
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
    fn alias_addresses_have_the_memory_types_of_the_memory() {
        const ALIAS: u64 = 1 << 47;
        // All memory is write-back, except for the last 512 MiB below 4 GiB.
        let mtrrs = Mtrrs::read(48, |index| match index {
            IA32_MTRRCAP => 1,
            IA32_MTRR_DEF_TYPE => 0x806,
            IA32_MTRR_PHYSBASE0 => 0xe000_0000,
            _ => 0xffff_e000_0800,
        });
        let map = Identity {
            mtrrs,
            hidden: RangeSet::new(),
            watched: None,
            moved: None,
            locks: Locks::default(),
            alias: ALIAS,
        };
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
