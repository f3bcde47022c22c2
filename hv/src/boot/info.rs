//! What the loader tells Vidar, freed from how it tells it.
//!
//! There may be any amount of it, so it is read where the loader has put it. That is usable memory: what is still to be read there
//! must not be overwritten ([`BootInfo::occupied`]).

use alloc::vec::Vec;
use core::fmt::{self, Write};
use core::ops::Range;

use super::multiboot2::Modules;
use crate::guest::boot_params::Screen;
use crate::guest::efi_map;
use crate::mem::addr::Hpa;
use crate::mem::map::MemoryMap;

/// Text that a user or a firmware wrote: bytes, of which most are UTF-8. What cannot be shown is shown as an escape.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Text<'a>(pub &'a [u8]);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.utf8_chunks().try_for_each(|chunk| {
            chunk.valid().chars().try_for_each(|c| match c {
                c if c.is_control() => write!(f, "{}", c.escape_default()),
                c => f.write_char(c),
            })?;
            chunk.invalid().iter().try_for_each(|byte| write!(f, "\\x{byte:02x}"))
        })
    }
}

impl fmt::Debug for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        fmt::Display::fmt(self, f)?;
        f.write_char('"')
    }
}

/// A file that the loader put into memory.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Module<'a> {
    /// Where its bytes are.
    pub range: Range<Hpa>,
    /// The words after its name in the loader's configuration.
    pub command_line: Text<'a>,
}

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
    /// Memory that Vidar keeps beside its region; in `memory` it is reserved.
    pub kept: Vec<Range<Hpa>>,
    /// A copy of the ACPI root pointer, as it stands in the loader's information.
    pub rsdp: Option<&'a [u8]>,
    /// What the screen shows, if anything is known of one.
    pub screen: Option<Screen>,
    /// What EFI firmware left behind.
    pub efi: Option<EfiTables<'a>>,
}

impl BootInfo<'_> {
    /// Keeps `range` from the guest, and says why.
    pub fn keep(&mut self, range: Range<Hpa>, why: &str) {
        log::info!("keeps {} to {} as well, {why}", range.start, Hpa(range.end.0.saturating_sub(1)));
        self.memory = self.memory.reserved(&range);
        self.kept.push(range);
    }

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_that_is_not_utf8_can_be_shown() {
        assert_eq!(Text("für quiet".as_bytes()).to_string(), "für quiet");
        assert_eq!(Text(b"f\xfcr \"x\"").to_string(), "f\\xfcr \"x\"");
        assert_eq!(Text(b"\x1b[2J\r").to_string(), "\\u{1b}[2J\\r");
        assert_eq!(format!("{:?}", Text(b"a\xff")), "\"a\\xff\"");
    }
}
