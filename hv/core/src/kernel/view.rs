//! Reads memory by the kernel's virtual addresses.

use crate::mem::addr::Gpa;
use crate::mem::walk::{self, Paging, ReadGuest};
use crate::policy::control::Controls;
use crate::vmm::fetch::paging;

/// Where the kernel maps its image: the GiB from `__START_KERNEL_map` on, of which the image takes a part. Linux 6.1,
/// arch/x86/include/asm/page_64_types.h, `KERNEL_IMAGE_SIZE`.
const IMAGE: u64 = 0xffff_ffff_8000_0000;
/// The size of that mapping.
const IMAGE_BYTES: u64 = 1 << 30;
/// The lowest address of the kernel's half, whatever the number of levels.
const KERNEL_HALF: u64 = 1 << 63;
/// The bit of CR3 that selects the page tables of user mode, with page-table isolation. Linux 6.1,
/// arch/x86/entry/calling.h, `PTI_USER_PGTABLE_BIT`.
const USER_TABLES: u64 = 1 << 12;

/// How the kernel translates its addresses. These numbers come from the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Translation {
    /// What is added to the offset of an address in the image's mapping, to get the physical address.
    pub phys_base: u64,
    /// The physical address of the kernel's own page tables, which have all of its half and nothing of user mode.
    pub tables: Gpa,
    /// The number of levels of these tables.
    pub levels: u32,
}

impl Translation {
    /// Returns how a kernel translates whose own tables are at `tables` in its image.
    pub fn new(phys_base: u64, tables: u64, levels: u32) -> Option<Self> {
        Some(Self { phys_base, tables: in_image(phys_base, tables)?, levels })
    }

    /// Returns the physical address of `address` if it is in the mapping of the image.
    pub fn in_image(&self, address: u64) -> Option<Gpa> {
        in_image(self.phys_base, address)
    }
}

fn in_image(phys_base: u64, address: u64) -> Option<Gpa> {
    let offset = address.wrapping_sub(IMAGE);
    (offset < IMAGE_BYTES).then(|| Gpa(offset.wrapping_add(phys_base)))
}

/// The memory of a kernel, by its virtual addresses.
#[derive(Clone, Copy)]
pub struct View<'a> {
    memory: &'a dyn ReadGuest,
    translation: Translation,
}

impl<'a> View<'a> {
    /// Returns the memory of the kernel that translates so.
    pub const fn new(memory: &'a dyn ReadGuest, translation: Translation) -> Self {
        Self { memory, translation }
    }

    /// Returns the guest-physical address of `address`. `None` if it is not of the kernel's half or not mapped.
    fn place(&self, address: u64) -> Option<Gpa> {
        if address < KERNEL_HALF {
            return None;
        }
        let Translation { tables, levels, .. } = self.translation;
        let walk =
            || walk::translate(Paging::Long { levels }, tables.0, address, |entry| self.memory.word(entry));
        self.translation.in_image(address).or_else(walk)
    }

    /// Returns the eight bytes at `address`, a multiple of eight.
    pub fn word(&self, address: u64) -> Option<u64> {
        self.memory.word(self.place(address)?.align_down(8))
    }

    /// Returns the number of `bytes` bytes at `address`, from one to eight. It may lie across two pages.
    fn number(&self, address: u64, bytes: u32) -> Option<u64> {
        let (first, shift) = (address & !7, (address % 8 * 8) as u32);
        let mut number = self.word(first)? >> shift;
        let (bits, had) = (bytes * 8, 64 - shift);
        if bits > had {
            number |= self.word(first.checked_add(8)?)? << had;
        }
        Some(number & u64::MAX >> (64 - bits))
    }

    /// Returns the byte at `address`.
    pub fn u8(&self, address: u64) -> Option<u8> {
        Some(self.number(address, 1)? as u8)
    }

    /// Returns the two bytes at `address`.
    pub fn u16(&self, address: u64) -> Option<u16> {
        Some(self.number(address, 2)? as u16)
    }

    /// Returns the four bytes at `address`.
    pub fn u32(&self, address: u64) -> Option<u32> {
        Some(self.number(address, 4)? as u32)
    }

    /// Returns the eight bytes at `address`.
    pub fn u64(&self, address: u64) -> Option<u64> {
        self.number(address, 8)
    }

    /// Returns the bytes from `address` on.
    pub const fn stream(self, address: u64) -> Stream<'a> {
        Stream { view: self, at: address, word: None }
    }
}

/// The bytes from an address on. A word is read once for all of its bytes.
pub struct Stream<'a> {
    view: View<'a>,
    /// The address of the next byte.
    pub at: u64,
    /// The last word that was read, and its address.
    word: Option<(u64, u64)>,
}

impl Stream<'_> {
    /// Leaves out `bytes` bytes. The stream ends if there are not as many addresses.
    pub fn skip(&mut self, bytes: u64) -> Option<()> {
        self.at = self.at.checked_add(bytes)?;
        Some(())
    }

    /// Returns the next byte.
    pub fn byte(&mut self) -> Option<u8> {
        let address = self.at & !7;
        let word = match self.word {
            Some((at, word)) if at == address => word,
            _ => {
                let word = self.view.word(address)?;
                self.word = Some((address, word));
                word
            }
        };
        let byte = (word >> (self.at % 8 * 8)) as u8;
        self.skip(1)?;
        Some(byte)
    }
}

/// Returns the guest-physical address of `linear` as a CPU with these control registers sees it. In user mode, Linux
/// with page-table isolation leaves most of the kernel's half out of the page tables; it is then found by the other
/// tables of the same process.
pub fn locate(memory: &dyn ReadGuest, controls: &Controls, linear: u64) -> Option<Gpa> {
    let mode = paging(controls);
    let walk = |cr3| walk::translate(mode, cr3, linear, |entry| memory.word(entry));
    let isolated = matches!(mode, Paging::Long { .. }) && controls.cr3 & USER_TABLES != 0;
    walk(controls.cr3).or_else(|| if isolated { walk(controls.cr3 & !USER_TABLES) } else { None })
}
