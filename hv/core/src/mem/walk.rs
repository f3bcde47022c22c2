//! Walks the guest's own page tables to find the bytes of an instruction that the CPU has just executed. The walk does
//! not repeat the CPU's checks of rights, reserved bits and accessed bits.
//!
//! AMD APM Vol. 2, 5.2 "Legacy-Mode Page Translation" and 5.3 "Long-Mode Page Translation".

use super::addr::{Gpa, Hpa, PAGE_SIZE};

/// The guest's physical memory, for reading.
pub trait ReadGuest {
    /// Returns the eight bytes at `address`, a multiple of eight; `None` if there can be no memory.
    fn word(&self, address: Gpa) -> Option<u64>;

    /// Returns the host-physical page that the guest sees around `address`, which is never one of Vidar's own; `None`
    /// if there can be no memory.
    fn page(&self, address: Gpa) -> Option<Hpa>;
}

/// The paging mode of the guest's CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Paging {
    /// No paging.
    Off,
    /// 32-bit paging: two levels of 32-bit entries.
    Bits32 {
        /// CR4.PSE: there are pages of 4 MiB.
        large_pages: bool,
    },
    /// PAE paging: three levels, of which the first has four entries.
    Pae,
    /// 4-level or 5-level paging.
    Long {
        /// The number of levels.
        levels: u32,
    },
}

const PRESENT: u64 = 1 << 0;
const LARGE: u64 = 1 << 7;
/// The address in a 64-bit entry: bits 51:12.
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// Returns the guest-physical address of the byte at `linear`; `None` if it is not mapped or `read` returns `None`.
/// `read` returns a word of eight bytes at an aligned address.
pub fn translate(
    paging: Paging,
    cr3: u64,
    linear: u64,
    mut read: impl FnMut(Gpa) -> Option<u64>,
) -> Option<Gpa> {
    match paging {
        Paging::Off => Some(Gpa(linear)),
        Paging::Bits32 { large_pages } => {
            let mut entry = |address: u64| {
                let word = read(Gpa(address & !7))?;
                let entry = word >> ((address & 4) * 8) & 0xffff_ffff;
                (entry & PRESENT != 0).then_some(entry)
            };
            let directory = entry((cr3 & 0xffff_f000) + (linear >> 22 & 0x3ff) * 4)?;
            if large_pages && directory & LARGE != 0 {
                // Bits 20:13 of the entry are bits 39:32 of the address.
                return Some(Gpa(directory & 0xffc0_0000
                    | (directory >> 13 & 0xff) << 32
                    | linear & 0x3f_ffff));
            }
            let table = entry((directory & 0xffff_f000) + (linear >> 12 & 0x3ff) * 4)?;
            Some(Gpa(table & 0xffff_f000 | linear & 0xfff))
        }
        // Under nested paging the CPU reads the four page-directory-pointer entries when it needs them, like any
        // others: AMD APM Vol. 2, 15.25.10 "Legacy PAE Mode".
        Paging::Pae => {
            let pointers = (cr3 & 0xffff_ffe0) + (linear >> 30 & 3) * 8;
            let directory = read(Gpa(pointers)).filter(|entry| entry & PRESENT != 0)?;
            descend(directory & ADDRESS, 2, linear, read)
        }
        Paging::Long { levels } => descend(cr3 & ADDRESS, levels, linear, read),
    }
}

/// Walks `levels` levels of tables with 512 entries from the table at `table` on. Returns as [`translate`] does.
fn descend(
    mut table: u64,
    levels: u32,
    linear: u64,
    mut read: impl FnMut(Gpa) -> Option<u64>,
) -> Option<Gpa> {
    for level in (0..levels).rev() {
        let shift = 12 + 9 * level;
        let entry = read(Gpa(table + (linear >> shift & 0x1ff) * 8))?;
        if entry & PRESENT == 0 {
            return None;
        }
        // Level 1 and 2 can map pages of 2 MiB and 1 GiB; the bit is reserved in higher levels.
        if level == 0 || level <= 2 && entry & LARGE != 0 {
            let inside = (1 << shift) - 1;
            return Some(Gpa(entry & ADDRESS & !inside | linear & inside));
        }
        table = entry & ADDRESS;
    }
    None
}

/// An iterator over the bytes from a linear address on. Each byte is read when it is needed, and the iterator ends at
/// the first that cannot be read.
pub struct Bytes<R> {
    paging: Paging,
    cr3: u64,
    /// The linear address of the first byte of the next page.
    linear: u64,
    /// The highest linear address, after which addresses wrap to 0.
    mask: u64,
    read: R,
    /// The guest-physical address of the next byte, unless it is in the next page.
    physical: u64,
    /// The bytes of the current word that have not been returned yet, the next one lowest.
    word: u64,
}

impl<R: FnMut(Gpa) -> Option<u64>> Bytes<R> {
    /// Returns the bytes from `linear` on. Addresses wrap after `mask`, and `read` is as for [`translate`].
    pub const fn new(paging: Paging, cr3: u64, linear: u64, mask: u64, read: R) -> Self {
        Self { paging, cr3, linear, mask, read, physical: 0, word: 0 }
    }
}

impl<R: FnMut(Gpa) -> Option<u64>> Iterator for Bytes<R> {
    type Item = u8;

    fn next(&mut self) -> Option<u8> {
        if self.physical.is_multiple_of(8) {
            if self.physical.is_multiple_of(PAGE_SIZE) {
                self.physical = translate(self.paging, self.cr3, self.linear, &mut self.read)?.0;
                self.linear = (self.linear | (PAGE_SIZE - 1)).wrapping_add(1) & self.mask;
            }
            self.word = (self.read)(Gpa(self.physical & !7))? >> (self.physical % 8 * 8);
        }
        let byte = self.word as u8;
        self.word >>= 8;
        self.physical += 1;
        Some(byte)
    }
}
