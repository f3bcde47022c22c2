//! Parses Multiboot2 boot information into [`BootInfo`].
//!
//! A tag may be too short for its type, so every field is read with a check.

use multiboot2::{BootLoaderNameTag, CommandLineTag, MaybeDynSized, TagType};

use super::bytes::{u32_at, u64_at};
use super::info::{BootInfo, EfiTables};
use super::modules::Modules;
use super::tags::{Malformed, Tags};
use super::text::Text;
use crate::console::screen::{COLUMNS, ROWS};
use crate::firmware::efi_map;
use crate::linux::boot_params::{ColourField, FramebufferInfo, ScreenInfo};
use crate::mem::addr::Hpa;
use crate::mem::map::{MemoryKind, MemoryMap, MemoryRegion};

/// The value that a Multiboot2 loader leaves in EAX.
pub const MAGIC: u32 = multiboot2::MAGIC;

/// Parses the boot information at the start of `bytes`. `start` is its physical address.
///
/// # Errors
/// [`Malformed`] if it is not a sequence of whole tags up to an end tag, see [`Tags::new`].
pub fn parse(bytes: &[u8], start: Hpa) -> Result<BootInfo<'_>, Malformed> {
    let tags = Tags::new(bytes)?;
    let mut info = BootInfo {
        place: start..start + u64::from(u32_at(bytes, 0).unwrap_or(0)),
        command_line: Text::default(),
        loader: Text::default(),
        modules: Modules(tags.clone()),
        memory: MemoryMap::default(),
        rsdp: None,
        screen: None,
        efi: None,
    };
    let mut efi_system_table = None;
    let mut efi_memory_map = None;
    let mut screen = None;
    for tag in tags {
        let (kind, size, payload) = (tag.header().typ, tag.header().size as usize, tag.payload());
        match TagType::from(kind) {
            TagType::Cmdline if size >= CommandLineTag::BASE_SIZE => {
                info.command_line = Text::until_zero(payload);
            }
            TagType::BootLoaderName if size >= BootLoaderNameTag::BASE_SIZE => {
                info.loader = Text::until_zero(payload);
            }
            TagType::Mmap => info.memory = memory_map(payload),
            TagType::Framebuffer => screen = Some(self::screen(payload)),
            TagType::Efi32 => {
                efi_system_table = u32_at(payload, 0).map(|address| (false, Hpa(address.into())));
            }
            TagType::Efi64 => efi_system_table = u64_at(payload, 0).map(|address| (true, Hpa(address))),
            TagType::EfiMmap => efi_memory_map = Some(payload),
            // The RSDP of ACPI 2.0 takes precedence over that of ACPI 1.0, in either order of the tags.
            TagType::AcpiV2 => info.rsdp = payload.get(..36),
            TagType::AcpiV1 if info.rsdp.is_none() => info.rsdp = payload.get(..20),
            _ => {}
        }
    }
    info.efi = efi_system_table.map(|(is_64bit, system_table)| {
        let map = efi_memory_map.unwrap_or_default();
        EfiTables {
            is_64bit,
            system_table,
            descriptor_size: u32_at(map, 0).unwrap_or(0),
            descriptor_version: u32_at(map, 4).unwrap_or(0),
            memory_map: map.get(8..).unwrap_or_default(),
        }
    });
    // Without a framebuffer tag, a PC with a BIOS shows text. EFI has no text screen.
    info.screen = screen.unwrap_or_else(|| info.efi.is_none().then_some(TEXT));
    // The EFI memory map says more than the memory map that the loader derives from it.
    if let Some(efi) = info.efi.as_ref().filter(|efi| !efi.memory_map.is_empty()) {
        info.memory = efi_map::memory_map(efi.memory_map, efi.descriptor_size);
    }
    Ok(info)
}

/// Reads a memory map. Multiboot2 Specification 2.0, 3.6.8 "Memory map": the tag gives the size of its entries, which
/// may grow in later versions. Their types are those of e820.
fn memory_map(payload: &[u8]) -> MemoryMap<'_> {
    let entry_size = u32_at(payload, 0).map_or(24, |size| size.max(24) as usize);
    MemoryMap::new(payload.get(8..).unwrap_or_default(), entry_size, |entry| {
        let kind = MemoryKind::from_raw(u32_at(entry, 16)?);
        Some(MemoryRegion::new(Hpa(u64_at(entry, 0)?), u64_at(entry, 8)?, kind))
    })
}

/// The VGA text screen of a PC.
pub const TEXT: ScreenInfo = ScreenInfo::Text { columns: COLUMNS as u8, rows: ROWS as u8, cursor: (0, 0) };

/// Reads a framebuffer tag. Multiboot2 Specification 2.0, 3.6.12 "Framebuffer info". Returns `None` for a palette,
/// which Vidar does not support.
fn screen(payload: &[u8]) -> Option<ScreenInfo> {
    const EGA_TEXT: u8 = 2;
    let (fixed, colours) = payload.split_at_checked(24)?;
    if fixed.get(21) == Some(&EGA_TEXT) {
        return Some(TEXT);
    }
    direct_colour(fixed, colours).map(ScreenInfo::Framebuffer)
}

/// Returns the framebuffer that the fields describe which both versions of Multiboot have: `fixed` begins with the
/// address, and `colours` with the position of red. Returns `None` unless the type is 1, direct colour.
pub fn direct_colour(fixed: &[u8], colours: &[u8]) -> Option<FramebufferInfo> {
    const DIRECT_COLOUR: u8 = 1;
    let [bits_per_pixel, DIRECT_COLOUR, ..] = fixed.get(20..)? else { return None };
    let &[[red, red_size], [green, green_size], [blue, blue_size], ..] = colours.as_chunks().0 else {
        return None;
    };
    Some(FramebufferInfo {
        base: Hpa(u64_at(fixed, 0)?),
        pitch: u32_at(fixed, 8)?,
        width: u32_at(fixed, 12)?,
        height: u32_at(fixed, 16)?,
        bits_per_pixel: *bits_per_pixel,
        red: ColourField { position: red, size: red_size },
        green: ColourField { position: green, size: green_size },
        blue: ColourField { position: blue, size: blue_size },
    })
}
