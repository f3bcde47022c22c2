//! The guest's physical memory as its CPUs see it. Vidar reads there what a CPU has just read itself or, for a
//! microcode update, what a CPU could have read.
//!
//! This may be any memory: RAM that was added while the machine runs, or the decoy, which the guest sees in place of
//! Vidar's memory. If another CPU changes the guest's page tables meanwhile, a walk may lead to a device, and Vidar
//! reads eight bytes from it. The kernel that wrote these tables could read the device itself. A kernel without faults
//! does not cause this: it frees or changes tables that a CPU uses only after that CPU has flushed its TLB, which the
//! CPU does in the guest.

use core::ops::Range;

use super::addr::{Gpa, Hpa, PAGE_SIZE};
use super::moved::MovedPages;
use super::ranges::RangeSet;

/// Where Vidar can read the bytes at a guest-physical address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In the direct map.
    Direct(Hpa),
    /// In no mapping yet: through the CPU's window.
    Window(Hpa),
}

/// Determines where the guest's memory can be read.
#[derive(Debug, Clone)]
pub struct View {
    /// The addresses that the direct map has, besides the decoy and the moved pages.
    pub mapped: RangeSet,
    /// Vidar's own memory, in place of which the guest sees the decoy.
    pub hidden: RangeSet,
    /// Guest pages that lie at other host-physical addresses.
    pub moved: Option<MovedPages>,
    /// The address of the decoy.
    pub decoy: Hpa,
    /// The width of a physical address in bits.
    pub physical_address_bits: u32,
    /// The bits of an address that select only how memory is encrypted.
    pub alias: u64,
}

impl View {
    /// Returns where the word at `word`, a multiple of eight, can be read; `None` beyond the physical-address width,
    /// where a page-table entry with such an address faults.
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
            (plain.0 >> self.physical_address_bits == 0).then_some(Place::Window(address))
        }
    }

    /// Returns the host-physical page of `address`, see [`ReadGuest::page`](crate::mem::walk::ReadGuest::page).
    pub fn page(&self, address: Gpa) -> Option<Hpa> {
        match self.find(address.align_down(PAGE_SIZE))? {
            Place::Direct(page) | Place::Window(page) => Some(page),
        }
    }

    /// Returns the range with the most RAM that is in the direct map and neither hidden nor moved. The longest range
    /// may be one of devices, since the direct map has all addresses below 4 GiB.
    fn plain(&self, ram: &RangeSet) -> Range<Hpa> {
        let mut plain = self.mapped.clone();
        self.hidden.iter().for_each(|hidden| plain.remove(hidden));
        let moved = self.moved.iter().flat_map(MovedPages::pages);
        moved.for_each(|page| plain.remove(&(page..page + PAGE_SIZE)));
        let overlap = |one: &Range<Hpa>, other: &Range<Hpa>| {
            one.end.0.min(other.end.0).saturating_sub(one.start.0.max(other.start.0))
        };
        let of_ram = |range: &&Range<Hpa>| ram.iter().map(|piece| overlap(piece, range)).sum::<u64>();
        plain.iter().max_by_key(of_ram).cloned().unwrap_or(Hpa(0)..Hpa(0))
    }
}

/// Finds memory like a [`View`], with a fast path for the range with the most RAM in which nothing has to be decided.
#[derive(Debug, Clone, Copy)]
pub struct Reader {
    plain_start: u64,
    plain_bytes: u64,
    view: &'static View,
}

impl Reader {
    /// Returns a reader for `view`, of a guest with this RAM.
    pub fn new(view: &'static View, ram: &RangeSet) -> Self {
        let plain = view.plain(ram);
        Self { plain_start: plain.start.0, plain_bytes: plain.end.0 - plain.start.0, view }
    }

    /// Returns the same as [`View::find`].
    #[inline]
    pub fn place(&self, word: Gpa) -> Option<Place> {
        // The direct map consists of whole pages, so the whole word is in it if its first byte is.
        if word.0.wrapping_sub(self.plain_start) < self.plain_bytes {
            return Some(Place::Direct(word.identity()));
        }
        self.find(word)
    }

    /// Returns the same as [`View::page`].
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
    /// A bit above the remaining address width, like the C-bit of AMD CPUs.
    const ALIAS: u64 = 1 << 47;

    fn view() -> &'static View {
        let mut mapped = RangeSet::from([Hpa(0)..Hpa(4096 * MIB), Hpa(5000 * MIB)..Hpa(5002 * MIB)]);
        let region = Hpa(2 * MIB)..Hpa(4 * MIB);
        mapped.remove(&region);
        let hidden = [Hpa(0x9_e000)..Hpa(0x9_f000), region, Hpa(5000 * MIB)..Hpa(5001 * MIB)].into();
        let moved = MovedPages::new(&mapped, &(Hpa(0x1000)..Hpa(0x9_e000)), MOVED);
        Box::leak(Box::new(View {
            mapped,
            hidden,
            moved: Some(moved),
            decoy: DECOY,
            physical_address_bits: 40,
            alias: ALIAS,
        }))
    }

    #[test]
    fn each_word_is_read_where_the_guest_sees_it() {
        let reader = Reader::new(view(), &[Hpa(0)..Hpa(4096 * MIB)].into());
        for (address, place) in [
            (0xff8, Some(Place::Direct(Hpa(0xff8)))),
            (0x1000, Some(Place::Direct(MOVED))),
            (0x9_d008, Some(Place::Direct(MOVED + 0x9_c008))),
            (4 * MIB, Some(Place::Direct(Hpa(4 * MIB)))),
            (4096 * MIB - 8, Some(Place::Direct(Hpa(4096 * MIB - 8)))),
            (5001 * MIB, Some(Place::Direct(Hpa(5001 * MIB)))),
            // Vidar's own memory, in each of its ranges.
            (0x9_e008, Some(Place::Direct(DECOY + 8))),
            (2 * MIB, Some(Place::Direct(DECOY))),
            (4 * MIB - 8, Some(Place::Direct(DECOY + 0xff8))),
            (5000 * MIB + 0x1230, Some(Place::Direct(DECOY + 0x230))),
            // The same memory with the alias bit set.
            (ALIAS | 0x1000, Some(Place::Direct(MOVED))),
            (ALIAS | (2 * MIB), Some(Place::Direct(DECOY))),
            (ALIAS | (4 * MIB), Some(Place::Window(Hpa(ALIAS | (4 * MIB))))),
            // Memory that has been added, and devices.
            (4096 * MIB, Some(Place::Window(Hpa(4096 * MIB)))),
            (5002 * MIB, Some(Place::Window(Hpa(5002 * MIB)))),
            ((1 << 40) - 8, Some(Place::Window(Hpa((1 << 40) - 8)))),
            // Beyond the address width.
            (1 << 40, None),
            (ALIAS | (1 << 40), None),
            (u64::MAX - 7, None),
        ] {
            assert_eq!(reader.place(Gpa(address)), place, "{address:#x}");
            assert_eq!(view().find(Gpa(address)), place, "{address:#x}, without the fast path");
            // The page of an address is the page of its word.
            let page = place.map(|(Place::Direct(place) | Place::Window(place))| place.align_down(PAGE_SIZE));
            assert_eq!(view().page(Gpa(address)), page, "the page of {address:#x}");
        }
    }

    #[test]
    fn fast_path_covers_the_plain_range_with_the_most_ram() {
        let ram = RangeSet::from([Hpa(0)..Hpa(256 * MIB)]);
        assert_eq!(view().plain(&ram), Hpa(4 * MIB)..Hpa(4096 * MIB));
        let mut with_annex = view().clone();
        with_annex.hidden.insert(Hpa(252 * MIB)..Hpa(254 * MIB));
        assert_eq!(with_annex.plain(&ram), Hpa(4 * MIB)..Hpa(252 * MIB));
        let nothing = View { mapped: RangeSet::new(), ..view().clone() };
        assert_eq!(nothing.plain(&ram), Hpa(0)..Hpa(0));
    }
}
