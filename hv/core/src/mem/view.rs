//! The guest's physical memory as its CPUs see it, for Vidar to read what one of them has just read itself, or, of
//! microcode, what it could have read.
//!
//! That may be anywhere: in memory that was added while the machine runs, and in the decoy that the guest is shown in
//! place of Vidar's memory. Another CPU can have changed the guest's page tables in between, so that a walk leads to a
//! device. Vidar then reads eight bytes of it. That is a read that the kernel which wrote those tables could do as well,
//! and it may not free or change tables that a CPU uses before that CPU has flushed its TLB, which it does in the guest.

use core::ops::Range;

use super::addr::{Gpa, Hpa, PAGE_SIZE};
use super::moved::Moved;
use super::ranges::RangeSet;

/// Where the bytes of a guest-physical address are to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In the direct map.
    Direct(Hpa),
    /// In no mapping of Vidar's: through the CPU's window.
    Window(Hpa),
}

/// What decides where the guest's memory is read.
#[derive(Debug, Clone)]
pub struct View {
    mapped: RangeSet,
    hidden: RangeSet,
    moved: Option<Moved>,
    decoy: Hpa,
    end: u64,
    alias: u64,
}

impl View {
    /// The view of a guest that is shown the page at `decoy` in place of the pages in `hidden`, and whose pages in `moved` lie
    /// elsewhere. The direct map has the addresses in `mapped`, and the decoy and those pages; physical addresses have so
    /// many bits, of which those in `alias` choose no other memory.
    pub fn new(
        mapped: RangeSet,
        hidden: RangeSet,
        moved: Option<Moved>,
        decoy: Hpa,
        physical_address_bits: u32,
        alias: u64,
    ) -> Self {
        Self { mapped, hidden, moved, decoy, end: 1 << physical_address_bits, alias }
    }

    /// Where the word at `word`, a multiple of eight, is to be read; `None` beyond what physical addresses reach: an entry
    /// of a page table with such an address faults.
    pub fn find(&self, word: Gpa) -> Option<Place> {
        let (address, plain) = (word.identity(), Hpa(word.0 & !self.alias));
        let moved = self.moved.as_ref().and_then(|moved| moved.place(plain.identity()));
        if let Some(place) = moved {
            Some(Place::Direct(place))
        } else if self.hidden.contains(plain) {
            Some(Place::Direct(self.decoy + word.0 % PAGE_SIZE))
        } else if self.mapped.contains(address) {
            Some(Place::Direct(address))
        } else {
            (plain.0 < self.end).then_some(Place::Window(address))
        }
    }

    /// As [`ReadGuest::page`](crate::mem::walk::ReadGuest::page).
    pub fn page(&self, address: Gpa) -> Option<Hpa> {
        match self.find(address.align_down(PAGE_SIZE))? {
            Place::Direct(page) | Place::Window(page) => Some(page),
        }
    }

    /// The longest piece of memory that is where the guest sees it and in the direct map.
    fn plain(&self) -> Range<Hpa> {
        let mut plain = self.mapped.clone();
        self.hidden.iter().for_each(|hidden| plain.remove(hidden));
        let moved = self.moved.iter().flat_map(Moved::pages);
        moved.for_each(|page| plain.remove(&(page..page + PAGE_SIZE)));
        let length = |range: &&Range<Hpa>| range.end.0 - range.start.0;
        plain.iter().max_by_key(length).cloned().unwrap_or(Hpa(0)..Hpa(0))
    }
}

/// Reads through a [`View`]: quickly where there is nothing to decide, which is nearly everywhere.
#[derive(Debug, Clone, Copy)]
pub struct Reader {
    plain_start: u64,
    plain_bytes: u64,
    view: &'static View,
}

impl Reader {
    /// A reader through `view`.
    pub fn new(view: &'static View) -> Self {
        let plain = view.plain();
        Self { plain_start: plain.start.0, plain_bytes: plain.end.0 - plain.start.0, view }
    }

    /// As [`View::find`].
    #[inline]
    pub fn place(&self, word: Gpa) -> Option<Place> {
        // The direct map has whole pages, so the whole word is in it if its first byte is.
        if word.0.wrapping_sub(self.plain_start) < self.plain_bytes {
            return Some(Place::Direct(word.identity()));
        }
        self.find(word)
    }

    /// As [`View::page`].
    pub fn page(&self, address: Gpa) -> Option<Hpa> {
        self.view.page(address)
    }

    #[cold]
    fn find(&self, word: Gpa) -> Option<Place> {
        self.view.find(word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    const DECOY: Hpa = Hpa(3 * MIB + 0x7000);
    const MOVED: Hpa = Hpa(5000 * MIB);
    /// Above the width that is left, as the C-bit of AMD's CPUs is.
    const ALIAS: u64 = 1 << 47;

    fn view() -> &'static View {
        let mut mapped = RangeSet::from([Hpa(0)..Hpa(4096 * MIB), Hpa(5000 * MIB)..Hpa(5002 * MIB)]);
        let region = Hpa(2 * MIB)..Hpa(4 * MIB);
        mapped.remove(&region);
        let hidden = [Hpa(0x9_e000)..Hpa(0x9_f000), region, Hpa(5000 * MIB)..Hpa(5001 * MIB)].into();
        let moved = Moved::new(&mapped, &(Hpa(0x1000)..Hpa(0x9_e000)), MOVED);
        Box::leak(Box::new(View::new(mapped, hidden, Some(moved), DECOY, 40, ALIAS)))
    }

    #[test]
    fn what_the_guest_sees_is_read() {
        let reader = Reader::new(view());
        for (address, place) in [
            (0xff8, Some(Place::Direct(Hpa(0xff8)))),
            (0x1000, Some(Place::Direct(MOVED))),
            (0x9_d008, Some(Place::Direct(MOVED + 0x9_c008))),
            (4 * MIB, Some(Place::Direct(Hpa(4 * MIB)))),
            (4096 * MIB - 8, Some(Place::Direct(Hpa(4096 * MIB - 8)))),
            (5001 * MIB, Some(Place::Direct(Hpa(5001 * MIB)))),
            // Memory that is Vidar's, in each of its places.
            (0x9_e008, Some(Place::Direct(DECOY + 8))),
            (2 * MIB, Some(Place::Direct(DECOY))),
            (4 * MIB - 8, Some(Place::Direct(DECOY + 0xff8))),
            (5000 * MIB + 0x1230, Some(Place::Direct(DECOY + 0x230))),
            // The same memory by the bit that only says how it is encrypted.
            (ALIAS | 0x1000, Some(Place::Direct(MOVED))),
            (ALIAS | (2 * MIB), Some(Place::Direct(DECOY))),
            (ALIAS | (4 * MIB), Some(Place::Window(Hpa(ALIAS | (4 * MIB))))),
            // Memory that came later, and devices.
            (4096 * MIB, Some(Place::Window(Hpa(4096 * MIB)))),
            (5002 * MIB, Some(Place::Window(Hpa(5002 * MIB)))),
            ((1 << 40) - 8, Some(Place::Window(Hpa((1 << 40) - 8)))),
            // Nowhere.
            (1 << 40, None),
            (ALIAS | (1 << 40), None),
            (u64::MAX - 7, None),
        ] {
            assert_eq!(reader.place(Gpa(address)), place, "{address:#x}");
            assert_eq!(view().find(Gpa(address)), place, "{address:#x}, without the quick way");
            // The page around it is the one that it lies in.
            let page = place.map(|(Place::Direct(place) | Place::Window(place))| place.align_down(PAGE_SIZE));
            assert_eq!(view().page(Gpa(address)), page, "the page of {address:#x}");
        }
    }

    #[test]
    fn the_quick_way_is_the_longest() {
        assert_eq!(view().plain(), Hpa(4 * MIB)..Hpa(4096 * MIB));
        let nothing = View::new(RangeSet::new(), RangeSet::new(), None, DECOY, 40, 0);
        assert_eq!(nothing.plain(), Hpa(0)..Hpa(0));
    }
}
