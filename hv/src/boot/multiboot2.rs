//! Multiboot2 boot information, made into [`BootInfo`].
//!
//! The crate finds the tags; it trusts their inner sizes, so those are looked at here before it casts.

#![cfg_attr(
    target_os = "none",
    expect(unsafe_code, reason = "the loader's information is found by its address")
)]

use alloc::vec::Vec;

use multiboot2::{
    BootInformation, BootLoaderNameTag, CommandLineTag, MaybeDynSized, ModuleTag, TagIter, TagType,
};

use super::info::{BootInfo, EfiTables, Module, Text};
use super::refusal::Refusal;
use crate::debug::screen::{COLUMNS, ROWS};
use crate::guest::boot_params::{Channel, Framebuffer, Screen};
use crate::guest::efi_map;
use crate::mem::addr::Hpa;
use crate::mem::map::{MemoryKind, MemoryMap, MemoryRegion};

/// What a Multiboot2 loader leaves in EAX.
pub const MAGIC: u32 = multiboot2::MAGIC;

/// Reads the boot information at physical address `address`, which the loader left in EBX.
///
/// # Errors
/// [`Refusal::BootInformation`] where it is not what the Multiboot2 specification describes.
#[cfg(target_os = "none")]
pub fn read(address: u32) -> Result<BootInfo<'static>, Refusal> {
    use alloc::boxed::Box;

    use crate::mem::layout::direct;

    let start = Hpa(u64::from(address));
    let pointer = direct(start).0 as *const u32;
    if address == 0 || !address.is_multiple_of(8) {
        return Err(Refusal::BootInformation);
    }
    // SAFETY: the direct map covers the first 4 GiB, and the address is aligned.
    let size = unsafe { *pointer };
    if size < 8 || address.checked_add(size).is_none() {
        return Err(Refusal::BootInformation);
    }
    // SAFETY: as above; nothing writes the loader's information before the guest's first instruction but what comes after
    // its last use.
    let bytes = unsafe { core::slice::from_raw_parts(pointer.cast::<u8>(), size as usize) };
    Ok(parse(Box::leak(Box::new(load(bytes)?)), start))
}

/// Boot information that starts at an 8-byte boundary.
///
/// # Errors
/// [`Refusal::BootInformation`] where its frame is broken.
#[cfg_attr(not(target_os = "none"), expect(unsafe_code, reason = "the crate takes a pointer"))]
pub fn load(bytes: &[u8]) -> Result<BootInformation<'_>, Refusal> {
    let stated = bytes.first_chunk().map_or(0, |size| u32::from_le_bytes(*size) as usize);
    if stated < 16 || stated > bytes.len() || bytes.as_ptr().align_offset(8) != 0 {
        return Err(Refusal::BootInformation);
    }
    // SAFETY: the pointer is aligned and readable for the size that is stated there, which `bytes` covers.
    unsafe { BootInformation::load(bytes.as_ptr().cast()) }.map_err(|_| Refusal::BootInformation)
}

/// The files that the loader put into memory, in the order of its configuration.
#[derive(Debug, Clone)]
pub struct Modules<'a>(TagIter<'a>);

impl<'a> Iterator for Modules<'a> {
    type Item = Module<'a>;

    fn next(&mut self) -> Option<Module<'a>> {
        self.0.find_map(|tag| {
            let (kind, size) = (tag.header().typ, tag.header().size as usize);
            if TagType::from(kind) != TagType::Module || size < ModuleTag::BASE_SIZE {
                return None;
            }
            let payload = tag.payload();
            let range = Hpa(u32_at(payload, 0)?.into())..Hpa(u32_at(payload, 4)?.into());
            Some(Module { range, command_line: text(payload.get(8..)?) })
        })
    }
}

/// What the boot information at physical address `start` says.
pub fn parse<'a>(information: &'a BootInformation<'_>, start: Hpa) -> BootInfo<'a> {
    let mut info = BootInfo {
        place: start..start + information.total_size() as u64,
        command_line: Text::default(),
        loader: Text::default(),
        modules: Modules(information.tags()),
        memory: MemoryMap::default(),
        kept: Vec::new(),
        rsdp: None,
        screen: None,
        efi: None,
    };
    let mut efi_system_table = None;
    let mut efi_memory_map = None;
    let mut screen = None;
    for tag in information.tags() {
        let (kind, size, payload) = (tag.header().typ, tag.header().size as usize, tag.payload());
        match TagType::from(kind) {
            TagType::Cmdline if size >= CommandLineTag::BASE_SIZE => info.command_line = text(payload),
            TagType::BootLoaderName if size >= BootLoaderNameTag::BASE_SIZE => info.loader = text(payload),
            TagType::Mmap => info.memory = memory_map(payload),
            TagType::Framebuffer => screen = Some(self::screen(payload)),
            TagType::Efi32 => {
                efi_system_table = u32_at(payload, 0).map(|address| (false, Hpa(address.into())));
            }
            TagType::Efi64 => efi_system_table = u64_at(payload, 0).map(|address| (true, Hpa(address))),
            TagType::EfiMmap => efi_memory_map = Some(payload),
            // The new root pointer replaces the old one, whichever comes first.
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
    // A PC whose loader says nothing of a screen shows text, and EFI has no text screen.
    info.screen = screen.unwrap_or_else(|| info.efi.is_none().then_some(TEXT));
    // What the loader makes of the firmware's map knows less.
    if let Some(efi) = info.efi.as_ref().filter(|efi| !efi.memory_map.is_empty()) {
        info.memory = efi_map::memory_map(efi.memory_map, efi.descriptor_size);
    }
    info
}

/// The bytes before the zero byte that ends them.
fn text(bytes: &[u8]) -> Text<'_> {
    Text(bytes.split(|byte| *byte == 0).next().unwrap_or_default())
}

fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    bytes.get(offset..)?.first_chunk().map(|chunk| u32::from_le_bytes(*chunk))
}

fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    bytes.get(offset..)?.first_chunk().map(|chunk| u64::from_le_bytes(*chunk))
}

/// Multiboot2 Specification 2.0, 3.6.8 "Memory map": entries are as long as the tag says, which may one day be more
/// than is known of them. Their types are those of e820.
fn memory_map(payload: &[u8]) -> MemoryMap<'_> {
    let entry_size = u32_at(payload, 0).map_or(24, |size| size.max(24) as usize);
    MemoryMap::new(payload.get(8..).unwrap_or_default(), entry_size, |entry| {
        let kind = MemoryKind::from_raw(u32_at(entry, 16)?);
        Some(MemoryRegion::new(Hpa(u64_at(entry, 0)?), u64_at(entry, 8)?, kind))
    })
}

/// The text screen of a PC.
const TEXT: Screen = Screen::Text { columns: COLUMNS as u8, rows: ROWS as u8, cursor: (0, 0) };

/// Multiboot2 Specification 2.0, 3.6.12 "Framebuffer info". A screen with a palette cannot be handed on.
fn screen(payload: &[u8]) -> Option<Screen> {
    const EGA_TEXT: u8 = 2;
    let (fixed, colours) = payload.split_at_checked(24)?;
    if fixed.get(21) == Some(&EGA_TEXT) {
        return Some(TEXT);
    }
    direct_colour(fixed, colours).map(Screen::Framebuffer)
}

/// A framebuffer by the fields that both versions of Multiboot have: only type 1, direct colour, can be handed on.
pub fn direct_colour(fixed: &[u8], colours: &[u8]) -> Option<Framebuffer> {
    const DIRECT_COLOUR: u8 = 1;
    let [bits_per_pixel, DIRECT_COLOUR, ..] = fixed.get(20..)? else { return None };
    let &[[red, red_size], [green, green_size], [blue, blue_size], ..] = colours.as_chunks().0 else {
        return None;
    };
    Some(Framebuffer {
        base: Hpa(u64_at(fixed, 0)?),
        pitch: u32_at(fixed, 8)?,
        width: u32_at(fixed, 12)?,
        height: u32_at(fixed, 16)?,
        bits_per_pixel: *bits_per_pixel,
        red: Channel { position: red, size: red_size },
        green: Channel { position: green, size: green_size },
        blue: Channel { position: blue, size: blue_size },
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const START: Hpa = Hpa(0x1_0000);

    /// Boot information with these tags, in memory that starts at an 8-byte boundary.
    fn information(tags: &[(u32, Vec<u8>)]) -> Vec<u64> {
        let mut bytes = vec![0; 8];
        for (kind, payload) in tags.iter().chain([&(0, Vec::new())]) {
            bytes.extend_from_slice(&kind.to_le_bytes());
            bytes.extend_from_slice(&(payload.len() as u32 + 8).to_le_bytes());
            bytes.extend_from_slice(payload);
            bytes.resize(bytes.len().next_multiple_of(8), 0);
        }
        let size = bytes.len() as u32;
        bytes[..4].copy_from_slice(&size.to_le_bytes());
        bytes.as_chunks().0.iter().map(|chunk| u64::from_le_bytes(*chunk)).collect()
    }

    fn loaded(words: &[u64]) -> Result<BootInformation<'_>, Refusal> {
        load(zerocopy::IntoBytes::as_bytes(words))
    }

    fn words(values: &[u32]) -> Vec<u8> {
        values.iter().flat_map(|value| value.to_le_bytes()).collect()
    }

    fn area(base: u64, length: u64, kind: u32) -> Vec<u8> {
        [&base.to_le_bytes()[..], &length.to_le_bytes(), &words(&[kind, 0])].concat()
    }

    #[test]
    fn what_grub_says() {
        let map = [words(&[24, 0]), area(0, 0x9_fc00, 1), area(0xf_0000, 0x1_0000, 2)].concat();
        let module = |start: u32, text: &[u8]| [words(&[start, start + 0x1000]), text.to_vec()].concat();
        let words = information(&[
            (1, b"log=debug\0".to_vec()),
            (2, b"GRUB 2.06\0".to_vec()),
            (3, module(0x10_0000, b"console=ttyS0,115200 name=f\xfcr\0")),
            (3, module(0x20_0000, b"\0")),
            (14, vec![7; 20]),
            (6, map),
        ]);
        let loaded = loaded(&words).expect("well formed");
        let info = parse(&loaded, START);
        assert_eq!((info.command_line, info.loader), (Text(b"log=debug"), Text(b"GRUB 2.06")));
        let modules: Vec<_> = info.modules.clone().collect();
        assert_eq!(modules.len(), 2);
        assert_eq!(modules[0].command_line, Text(b"console=ttyS0,115200 name=f\xfcr"));
        assert_eq!(modules[1].range, Hpa(0x20_0000)..Hpa(0x20_1000));
        assert_eq!(info.initrds().collect::<Vec<_>>(), [modules[1].range.clone()]);
        let size = words.len() as u64 * 8;
        assert_eq!(info.occupied().last(), Some(START..START + size));
        assert_eq!(info.memory.usable_bytes(), 0x9_fc00);
        assert_eq!(info.rsdp, Some(&[7; 20][..]));
    }

    #[test]
    fn what_is_missing_is_said() {
        let nothing = information(&[]);
        let nothing = loaded(&nothing).expect("a whole frame");
        assert_eq!(parse(&nothing, START).memory.usable_bytes(), 0);
        assert_eq!(loaded(&[]).err(), Some(Refusal::BootInformation));
        assert_eq!(loaded(&[1 << 20, 0, 0]).err(), Some(Refusal::BootInformation));
    }

    #[test]
    fn a_framebuffer_and_efi_are_known() {
        let screen =
            [words(&[0xe000_0000, 0, 4096, 1024, 768]), vec![32, 1, 0, 0, 16, 8, 8, 8, 0, 8]].concat();
        let words = information(&[
            (6, words(&[24, 0])),
            (8, screen),
            (12, 0x7f00_0000u64.to_le_bytes().to_vec()),
            (17, [words(&[48, 1]), vec![9; 96]].concat()),
        ]);
        let loaded = loaded(&words).expect("well formed");
        let info = parse(&loaded, START);
        assert!(matches!(
            info.screen,
            Some(Screen::Framebuffer(Framebuffer { width: 1024, bits_per_pixel: 32, .. }))
        ));
        let efi = info.efi.expect("both tags are there");
        assert_eq!((efi.system_table, efi.descriptor_size, efi.memory_map.len()), (Hpa(0x7f00_0000), 48, 96));
    }

    #[test]
    fn a_screen_is_what_is_said_or_what_the_firmware_has() {
        let of_kind = |kind: u8| (8, [words(&[0xb_8000, 0, 160, 80, 25]), vec![16, kind, 0, 0]].concat());
        let efi = (12, 0x7f00_0000u64.to_le_bytes().to_vec());
        let screen = |tags: &[(u32, Vec<u8>)]| {
            let words = information(tags);
            parse(&loaded(&words).expect("well formed"), START).screen
        };
        assert_eq!(screen(&[]), Some(TEXT));
        assert_eq!(screen(&[of_kind(2)]), Some(TEXT));
        assert_eq!(screen(core::slice::from_ref(&efi)), None, "UEFI without a screen");
        assert_eq!(screen(&[efi, of_kind(2)]), Some(TEXT));
        assert_eq!(screen(&[of_kind(0)]), None, "a palette");
    }

    fn look(words: &[u64]) {
        if let Ok(information) = loaded(words) {
            let info = parse(&information, START);
            let _ = (info.modules.clone().count(), info.memory.usable(), info.boot_services().count());
        }
    }

    proptest! {
        #[test]
        fn no_tags_panic(tags in proptest::collection::vec(
            (0u32..24, proptest::collection::vec(any::<u8>(), 0..80)), 0..12)) {
            let words = information(&tags);
            look(&words);
        }

        #[test]
        fn no_bytes_panic(mut words in proptest::collection::vec(any::<u64>(), 2..64), honest in any::<bool>()) {
            if honest {
                words[0] = words.len() as u64 * 8;
            }
            look(&words);
        }
    }
}
