//! The boot loader's information in a form that does not depend on the protocol.
//!
//! The information may have any size, so it is read where the loader has put it. That is usable memory, in which
//! nothing may be overwritten that is still to be read ([`BootInfo::occupied`]).

use core::ops::Range;

use super::modules::Modules;
use super::text::Text;
use crate::firmware::efi_map;
use crate::linux::boot_params::ScreenInfo;
use crate::mem::addr::{Hpa, overlaps};
use crate::mem::map::MemoryMap;

/// The tables of EFI firmware.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EfiTables<'a> {
    /// True if the firmware is 64-bit.
    pub is_64bit: bool,
    /// Address of the EFI system table.
    pub system_table: Hpa,
    /// Number of bytes from one descriptor of the memory map to the next.
    pub descriptor_size: u32,
    /// Version of the descriptors.
    pub descriptor_version: u32,
    /// The bytes of the EFI memory map; empty if the loader provided none.
    pub memory_map: &'a [u8],
}

/// Everything that Vidar uses of the boot loader's information.
#[derive(Debug, Clone)]
pub struct BootInfo<'a> {
    /// Where the information lies.
    pub place: Range<Hpa>,
    /// Vidar's own command line.
    pub command_line: Text<'a>,
    /// Name and version of the loader; empty if unknown.
    pub loader: Text<'a>,
    /// The modules in order: the kernel, then the parts of the initrd.
    pub modules: Modules<'a>,
    /// The firmware's memory map; empty if the loader provided none.
    pub memory: MemoryMap<'a>,
    /// The copy of the ACPI root pointer (RSDP) in the loader's information, if there is one.
    pub rsdp: Option<&'a [u8]>,
    /// What the screen shows; `None` if there is no usable screen.
    pub screen: Option<ScreenInfo>,
    /// The tables of EFI firmware; `None` on a BIOS.
    pub efi: Option<EfiTables<'a>>,
}

impl BootInfo<'_> {
    /// Returns the memory of EFI boot services, which some firmware still uses.
    pub fn boot_services(&self) -> impl Iterator<Item = Range<Hpa>> + Clone {
        let (map, size) = match &self.efi {
            Some(efi) => (efi.memory_map, efi.descriptor_size),
            None => (&[][..], 0),
        };
        efi_map::boot_services(map, size)
    }

    /// Returns the usable memory that is still to be read: this information and the modules.
    pub fn occupied(&self) -> impl Iterator<Item = Range<Hpa>> + Clone {
        self.modules.clone().map(|module| module.range).chain([self.place.clone()])
    }

    /// Returns true if any of that memory is in `place`.
    pub fn occupies(&self, place: &Range<Hpa>) -> bool {
        self.occupied().any(|occupied| overlaps(&occupied, place))
    }

    /// Returns where the parts of the initrd lie: all modules but the first.
    pub fn initrds(&self) -> impl Iterator<Item = Range<Hpa>> + Clone {
        self.modules.clone().skip(1).map(|module| module.range)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loader::multiboot2;

    #[test]
    fn memory_is_occupied_where_the_information_or_a_module_is() {
        /// Information of 40 bytes: its size, a module from 5000h to 5800h, and the end.
        #[repr(align(8))]
        struct Aligned([u8; 40]);
        let words = [40_u32, 0, 3, 17, 0x5000, 0x5800, 0, 0, 0, 8];
        let bytes = Aligned(words.map(u32::to_le_bytes).as_flattened().try_into().unwrap());
        let info = multiboot2::parse(&bytes.0, Hpa(0x1000)).unwrap();
        let occupied = |start, end| info.occupies(&(Hpa(start)..Hpa(end)));
        assert!(!occupied(0, 0x1000) && !occupied(0x1028, 0x5000) && !occupied(0x5800, 0x6000));
        assert!(occupied(0, 0x1001) && occupied(0x1027, 0x5000) && occupied(0x57ff, 0x6000));
        assert!(occupied(0, 0x6000));
    }
}
