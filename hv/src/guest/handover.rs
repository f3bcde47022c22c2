//! The hand-over block: the page of boot_params, a GDT, the command line and the EFI memory map, as the guest finds them in
//! its memory.

use alloc::vec;
use alloc::vec::Vec;

use super::boot_params;
use crate::mem::addr::{Hpa, PAGE_SIZE};

/// Selector of the flat 32-bit code segment in the GDT: the boot protocol's __BOOT_CS.
pub const CODE_SELECTOR: u16 = 0x10;
/// Selector of the flat 32-bit data segment: __BOOT_DS.
pub const DATA_SELECTOR: u16 = 0x18;

/// Two null descriptors, then 4 GiB of 32-bit code and of data, both accessed.
const GDT: [u64; 4] = [0, 0, 0x00cf_9b00_0000_ffff, 0x00cf_9300_0000_ffff];

/// Limit of the GDT in bytes.
pub const GDT_LIMIT: u16 = size_of_val(&GDT) as u16 - 1;

/// Offset of the command line in the block.
const COMMAND_LINE: usize = boot_params::SIZE + size_of_val(&GDT);

/// Where each part is in the block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    base: Hpa,
    efi_map: usize,
    size: usize,
}

impl Layout {
    /// The layout of a block at `base` for a command line and an EFI memory map of so many bytes.
    pub const fn new(base: Hpa, command_line: usize, efi_map: usize) -> Self {
        let at = (COMMAND_LINE + command_line + 1).next_multiple_of(8);
        Self { base, efi_map: at, size: (at + efi_map).next_multiple_of(PAGE_SIZE as usize) }
    }

    /// Bytes in the block, whole pages.
    pub const fn size(&self) -> u64 {
        self.size as u64
    }

    /// Where boot_params is.
    pub const fn boot_params(&self) -> Hpa {
        self.base
    }

    /// Where the GDT is.
    pub fn gdt(&self) -> Hpa {
        self.base + boot_params::SIZE as u64
    }

    /// Where the command line is.
    pub fn command_line(&self) -> Hpa {
        self.base + COMMAND_LINE as u64
    }

    /// Where the EFI memory map is.
    pub fn efi_map(&self) -> Hpa {
        self.base + self.efi_map as u64
    }

    /// The block but for boot_params, which stays zero.
    pub fn build(&self, command_line: &str, efi_map: &[u8]) -> Vec<u8> {
        let mut block = vec![0; self.size];
        let mut put = |at: usize, bytes: &[u8]| {
            if let Some(field) = block.get_mut(at..).and_then(|rest| rest.get_mut(..bytes.len())) {
                field.copy_from_slice(bytes);
            }
        };
        put(boot_params::SIZE, GDT.map(u64::to_le_bytes).as_flattened());
        put(COMMAND_LINE, command_line.as_bytes());
        put(self.efi_map, efi_map);
        block
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_do_not_touch() {
        let text = "console=ttyS0,115200";
        let map = [0x55; 96];
        let layout = Layout::new(Hpa(0x9_0000), text.len(), map.len());
        let block = layout.build(text, &map);
        assert_eq!(block.len() as u64, layout.size());
        assert_eq!(layout.size(), 2 * PAGE_SIZE);
        let at = |address: Hpa, length: usize| {
            let offset = (address.0 - 0x9_0000) as usize;
            &block[offset..offset + length]
        };
        assert!(block[..4096].iter().all(|byte| *byte == 0));
        assert_eq!(at(layout.gdt() + u64::from(CODE_SELECTOR), 8), 0x00cf_9b00_0000_ffffu64.to_le_bytes());
        assert_eq!(at(layout.efi_map(), map.len()), map);
        assert_eq!(at(layout.command_line(), text.len() + 1), [text.as_bytes(), &[0]].concat());
    }
}
