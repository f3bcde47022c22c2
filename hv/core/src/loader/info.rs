//! What the loader tells Vidar, freed from how it tells it.
//!
//! There may be any amount of it, so it is read where the loader has put it. That is usable memory: what is still to be read there
//! must not be overwritten ([`BootInfo::occupied`]).

use core::ops::Range;

use super::modules::Modules;
use super::text::Text;
use crate::firmware::efi_map;
use crate::linux::boot_params::Screen;
use crate::mem::addr::Hpa;
use crate::mem::map::MemoryMap;

/// What EFI firmware left behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EfiTables<'a> {
    /// Whether the firmware is a 64-bit one.
    pub is_64bit: bool,
    /// The EFI system table.
    pub system_table: Hpa,
    /// Bytes from one descriptor of the memory map to the next.
    pub descriptor_size: u32,
    /// Version of the descriptors.
    pub descriptor_version: u32,
    /// The memory map; empty if the loader gave none.
    pub memory_map: &'a [u8],
}

/// Everything that Vidar wants to know from its loader.
#[derive(Debug, Clone)]
pub struct BootInfo<'a> {
    /// Where all this is.
    pub place: Range<Hpa>,
    /// Vidar's own command line.
    pub command_line: Text<'a>,
    /// Name and version of the loader, or empty.
    pub loader: Text<'a>,
    /// The modules, in order: the kernel, then the parts of an initrd.
    pub modules: Modules<'a>,
    /// The firmware's memory map; empty if the loader gave none.
    pub memory: MemoryMap<'a>,
    /// A copy of the ACPI root pointer, as it stands in the loader's information.
    pub rsdp: Option<&'a [u8]>,
    /// What the screen shows, if anything is known of one.
    pub screen: Option<Screen>,
    /// What EFI firmware left behind.
    pub efi: Option<EfiTables<'a>>,
}

impl BootInfo<'_> {
    /// Memory of EFI's boot services, which some firmware goes on to use.
    pub fn boot_services(&self) -> impl Iterator<Item = Range<Hpa>> + Clone {
        let (map, size) = match &self.efi {
            Some(efi) => (efi.memory_map, efi.descriptor_size),
            None => (&[][..], 0),
        };
        efi_map::boot_services(map, size)
    }

    /// What lies in usable memory and is still to be read: this information, and the modules.
    pub fn occupied(&self) -> impl Iterator<Item = Range<Hpa>> + Clone {
        self.modules.clone().map(|module| module.range).chain([self.place.clone()])
    }

    /// Where the parts of the initrd are: all modules but the first.
    pub fn initrds(&self) -> impl Iterator<Item = Range<Hpa>> + Clone {
        self.modules.clone().skip(1).map(|module| module.range)
    }
}
