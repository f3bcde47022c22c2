//! What the loader tells Vidar, freed from how it tells it.

use alloc::string::String;
use alloc::vec::Vec;
use core::ops::Range;

use crate::guest::boot_params::Screen;
use crate::guest::efi_map;
use crate::mem::addr::Hpa;
use crate::mem::map::MemoryMap;

/// A file that the loader put into memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Module {
    /// Where its bytes are.
    pub range: Range<Hpa>,
    /// The words after its name in the loader's configuration.
    pub command_line: String,
}

/// What EFI firmware left behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EfiTables {
    /// Whether the firmware is a 64-bit one.
    pub is_64bit: bool,
    /// The EFI system table.
    pub system_table: Hpa,
    /// Bytes from one descriptor of the memory map to the next.
    pub descriptor_size: u32,
    /// Version of the descriptors.
    pub descriptor_version: u32,
    /// The memory map; empty if the loader gave none.
    pub memory_map: Vec<u8>,
}

/// Everything that Vidar wants to know from its loader.
#[derive(Debug, Clone)]
pub struct BootInfo {
    /// Vidar's own command line.
    pub command_line: String,
    /// Name and version of the loader, or empty.
    pub loader: String,
    /// The modules, in order: the kernel, then perhaps the initrd.
    pub modules: Vec<Module>,
    /// The firmware's memory map; empty if the loader gave none.
    pub memory: MemoryMap,
    /// Memory that Vidar keeps beside its region; in `memory` it is reserved.
    pub kept: Vec<Range<Hpa>>,
    /// A copy of the ACPI root pointer, as it stands in the loader's information.
    pub rsdp: Option<Vec<u8>>,
    /// What the screen shows.
    pub screen: Screen,
    /// What EFI firmware left behind.
    pub efi: Option<EfiTables>,
}

impl BootInfo {
    /// Keeps `range` from the guest, and says why.
    pub fn keep(&mut self, range: Range<Hpa>, why: &str) {
        log::info!("keeps {} to {} as well, {why}", range.start, Hpa(range.end.0.saturating_sub(1)));
        self.memory = self.memory.reserved(&range);
        self.kept.push(range);
    }

    /// Memory of EFI's boot services, which some firmware goes on to use.
    pub fn boot_services(&self) -> Vec<Range<Hpa>> {
        let map = |efi: &EfiTables| efi_map::boot_services(&efi.memory_map, efi.descriptor_size);
        self.efi.as_ref().map_or_else(Vec::new, map)
    }
}
