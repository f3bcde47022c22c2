//! What the kernel is told at its start: boot_params, also called the zero page.
//!
//! Linux, Documentation/arch/x86/boot.rst, "32-bit Boot Protocol", and zero-page.rst.

use core::mem::offset_of;
use core::ops::Range;

use linux_raw_sys::bootparam::{
    SETUP_E820_EXT, VIDEO_CAPABILITY_64BIT_BASE, VIDEO_TYPE_EFI, VIDEO_TYPE_VLFB, boot_e820_entry,
    boot_params, setup_data,
};

use super::bzimage::SetupHeader;
use crate::mem::addr::Hpa;
use crate::mem::map::{MemoryMap, MemoryRegion};

/// Bytes in boot_params.
pub const SIZE: usize = 4096;
/// Entries that the e820 table has room for. More of them go into a record of their own.
pub const E820_ENTRIES: usize = 128;
/// Bytes of an entry.
const E820_ENTRY: usize = size_of::<boot_e820_entry>();
/// Bytes of the head of a record that setup_data leads to.
const SETUP_DATA_HEAD: usize = size_of::<setup_data>();

const _: () = assert!(size_of::<boot_params>() == SIZE && E820_ENTRY == 20 && SETUP_DATA_HEAD == 16);

/// GRUB, which has loaded the kernel: the number that it writes itself when there is no Vidar.
const TYPE_OF_LOADER: u8 = 0x72;
/// Normal video mode: the screen is left as it is.
const VID_MODE_NORMAL: u16 = 0xffff;

/// efi_secureboot_mode_disabled of include/linux/efi.h.
const SECURE_BOOT_DISABLED: u8 = 2;

/// What is on the screen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Screen {
    /// VGA text, in mode 3 with characters 16 lines high.
    Text {
        /// Characters in a line.
        columns: u8,
        /// Lines.
        rows: u8,
        /// Where the cursor is: column and line, from 0.
        cursor: (u8, u8),
    },
    /// A linear framebuffer with a colour in each pixel.
    Framebuffer(Framebuffer),
}

/// A linear framebuffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Framebuffer {
    /// The first pixel.
    pub base: Hpa,
    /// Pixels in a line.
    pub width: u32,
    /// Lines.
    pub height: u32,
    /// Bytes from one line to the next.
    pub pitch: u32,
    /// Bits of a pixel, with those that are not used.
    pub bits_per_pixel: u8,
    /// Where red is in a pixel.
    pub red: Channel,
    /// Where green is in a pixel.
    pub green: Channel,
    /// Where blue is in a pixel.
    pub blue: Channel,
}

/// Where a colour is in a pixel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Channel {
    /// Its lowest bit.
    pub position: u8,
    /// Its bits, in number.
    pub size: u8,
}

/// The firmware's EFI tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Efi {
    /// Whether the firmware is a 64-bit one.
    pub is_64bit: bool,
    /// The EFI system table.
    pub system_table: Hpa,
    /// The EFI memory map.
    pub memory_map: Range<Hpa>,
    /// Bytes from one of its descriptors to the next.
    pub descriptor_size: u32,
    /// The version of its descriptors.
    pub descriptor_version: u32,
}

/// Everything that boot_params tells.
#[derive(Debug, Clone)]
pub struct BootInfo<'a> {
    /// The kernel's own header.
    pub header: &'a SetupHeader,
    /// Where the kernel is loaded.
    pub kernel: Hpa,
    /// The command line, ending in a zero byte.
    pub command_line: Hpa,
    /// The initrd.
    pub initrd: Option<Range<Hpa>>,
    /// The memory map, with Vidar's memory marked reserved.
    pub map: &'a MemoryMap<'a>,
    /// Where the record of [`more_regions`] goes, if there is one.
    pub setup_data: Hpa,
    /// The ACPI RSDP, or the copy of it that the boot loader made.
    pub rsdp: Option<Hpa>,
    /// What is on the screen, if anything is.
    pub screen: Option<Screen>,
    /// The EFI tables, if the firmware is EFI.
    pub efi: Option<Efi>,
}

/// Fills `page` with the boot_params for this kernel on this machine.
pub fn fill(page: &mut [u8; SIZE], info: &BootInfo<'_>) {
    page.fill(0);
    let mut page = Page(page);
    page.put(offset_of!(boot_params, hdr), info.header.bytes());
    put_header(&mut page, info);
    put_e820(&mut page, info.map);
    if let Some(rsdp) = info.rsdp {
        page.put(offset_of!(boot_params, acpi_rsdp_addr), &rsdp.0.to_le_bytes());
    }
    match info.screen {
        Some(Screen::Text { columns, rows, cursor }) => put_text(&mut page, columns, rows, cursor),
        Some(Screen::Framebuffer(framebuffer)) => {
            put_framebuffer(&mut page, &framebuffer, info.efi.is_some());
        }
        None => {}
    }
    if let Some(efi) = &info.efi {
        put_efi(&mut page, efi);
    }
}

/// Moves the cursor of a text screen in a page that [`fill`] has filled.
pub fn set_cursor(page: &mut [u8; SIZE], (column, row): (u8, u8)) {
    let mut page = Page(page);
    page.put(offset_of!(boot_params, screen_info.orig_x), &[column]);
    page.put(offset_of!(boot_params, screen_info.orig_y), &[row]);
}

/// The page with one way to write it. Offsets and sizes are constants that lie inside; a write that did not would be
/// left out.
struct Page<'a>(&'a mut [u8; SIZE]);

impl Page<'_> {
    fn put(&mut self, offset: usize, bytes: &[u8]) {
        let field = self.0.get_mut(offset..).and_then(|rest| rest.get_mut(..bytes.len()));
        if let Some(field) = field {
            field.copy_from_slice(bytes);
        }
    }

    /// Writes the two halves of an address or a size.
    fn put_halves(&mut self, low: usize, high: usize, value: u64) {
        self.put(low, &(value as u32).to_le_bytes());
        self.put(high, &((value >> 32) as u32).to_le_bytes());
    }
}

/// The fields of the header that are the boot loader's to write.
fn put_header(page: &mut Page<'_>, info: &BootInfo<'_>) {
    page.put(offset_of!(boot_params, hdr.vid_mode), &VID_MODE_NORMAL.to_le_bytes());
    page.put(offset_of!(boot_params, hdr.type_of_loader), &[TYPE_OF_LOADER]);
    // loadflags stay as the kernel has them: LOADED_HIGH was checked, and the rest is for the real-mode code.
    page.put(offset_of!(boot_params, hdr.code32_start), &(info.kernel.0 as u32).to_le_bytes());
    let setup_data = if more_regions_size(info.map) == 0 { Hpa(0) } else { info.setup_data };
    page.put(offset_of!(boot_params, hdr.setup_data), &setup_data.0.to_le_bytes());
    page.put_halves(
        offset_of!(boot_params, hdr.cmd_line_ptr),
        offset_of!(boot_params, ext_cmd_line_ptr),
        info.command_line.0,
    );
    let initrd = info.initrd.clone().unwrap_or_default();
    page.put_halves(
        offset_of!(boot_params, hdr.ramdisk_image),
        offset_of!(boot_params, ext_ramdisk_image),
        initrd.start.0,
    );
    page.put_halves(
        offset_of!(boot_params, hdr.ramdisk_size),
        offset_of!(boot_params, ext_ramdisk_size),
        initrd.end.0.saturating_sub(initrd.start.0),
    );
}

/// The entries that the kernel is told, each as the firmware gave it. Only where boot_params has no room for all are
/// neighbours of one kind joined, as Linux' EFI stub does it (setup_e820 of drivers/firmware/efi/libstub/x86-stub.c).
fn told<'a>(map: &'a MemoryMap<'_>) -> impl Iterator<Item = MemoryRegion> + 'a {
    let too_many = map.iter().nth(E820_ENTRIES).is_some();
    map.listed(too_many)
}

fn put_e820(page: &mut Page<'_>, map: &MemoryMap<'_>) {
    let mut entries = 0;
    for (index, region) in told(map).take(E820_ENTRIES).enumerate() {
        page.put(offset_of!(boot_params, e820_table) + index * E820_ENTRY, &e820_entry(&region));
        entries += 1;
    }
    page.put(offset_of!(boot_params, e820_entries), &[entries]);
}

/// Bytes of the record with the entries that boot_params has no room for; 0 if there are none.
pub fn more_regions_size(map: &MemoryMap<'_>) -> usize {
    match told(map).skip(E820_ENTRIES).count() {
        0 => 0,
        count => SETUP_DATA_HEAD + count * E820_ENTRY,
    }
}

/// Gives that record to `put`, piece by piece: Linux, Documentation/arch/x86/boot.rst, "setup_data", SETUP_E820_EXT.
pub fn more_regions(map: &MemoryMap<'_>, mut put: impl FnMut(&[u8])) {
    let Some(length) = more_regions_size(map).checked_sub(SETUP_DATA_HEAD) else { return };
    put(&0u64.to_le_bytes()); // the last record
    put(&SETUP_E820_EXT.to_le_bytes());
    put(&(length as u32).to_le_bytes());
    told(map).skip(E820_ENTRIES).for_each(|region| put(&e820_entry(&region)));
}

fn e820_entry(MemoryRegion { range, kind }: &MemoryRegion) -> [u8; E820_ENTRY] {
    let mut entry = [0; E820_ENTRY];
    let mut put = |offset: usize, bytes: &[u8]| entry[offset..offset + bytes.len()].copy_from_slice(bytes);
    put(offset_of!(boot_e820_entry, addr), &range.start.0.to_le_bytes());
    put(offset_of!(boot_e820_entry, size), &range.end.0.saturating_sub(range.start.0).to_le_bytes());
    put(offset_of!(boot_e820_entry, type_), &kind.to_raw().to_le_bytes());
    entry
}

fn put_text(page: &mut Page<'_>, columns: u8, rows: u8, (column, row): (u8, u8)) {
    page.put(offset_of!(boot_params, screen_info.orig_x), &[column]);
    page.put(offset_of!(boot_params, screen_info.orig_y), &[row]);
    page.put(offset_of!(boot_params, screen_info.orig_video_mode), &[3]);
    page.put(offset_of!(boot_params, screen_info.orig_video_cols), &[columns]);
    page.put(offset_of!(boot_params, screen_info.orig_video_lines), &[rows]);
    page.put(offset_of!(boot_params, screen_info.orig_video_isVGA), &[1]);
    page.put(offset_of!(boot_params, screen_info.orig_video_points), &16u16.to_le_bytes());
}

/// A framebuffer with a dimension that its field cannot hold is left out: better no screen than a skewed one.
fn put_framebuffer(page: &mut Page<'_>, framebuffer: &Framebuffer, efi: bool) {
    let narrow = |value: u32| u16::try_from(value).ok();
    let dimensions = (narrow(framebuffer.width), narrow(framebuffer.height), narrow(framebuffer.pitch));
    let (Some(width), Some(height), Some(pitch)) = dimensions else { return };
    let bytes = u32::from(pitch) * u32::from(height);
    // The EFI driver takes the size in bytes, the VESA driver in blocks of 64 KiB.
    let (kind, size) = if efi { (VIDEO_TYPE_EFI, bytes) } else { (VIDEO_TYPE_VLFB, bytes.div_ceil(1 << 16)) };
    let colours = [framebuffer.red, framebuffer.green, framebuffer.blue];
    let used = colours.iter().map(|channel| u32::from(channel.size)).sum::<u32>();
    let reserved = u32::from(framebuffer.bits_per_pixel).saturating_sub(used) as u8;
    let top = colours.iter().map(|channel| channel.position.saturating_add(channel.size)).max().unwrap_or(0);

    page.put(offset_of!(boot_params, screen_info.orig_video_isVGA), &[kind as u8]);
    page.put(offset_of!(boot_params, screen_info.lfb_width), &width.to_le_bytes());
    page.put(offset_of!(boot_params, screen_info.lfb_height), &height.to_le_bytes());
    let depth = u16::from(framebuffer.bits_per_pixel);
    page.put(offset_of!(boot_params, screen_info.lfb_depth), &depth.to_le_bytes());
    page.put(offset_of!(boot_params, screen_info.lfb_size), &size.to_le_bytes());
    page.put(offset_of!(boot_params, screen_info.lfb_linelength), &pitch.to_le_bytes());
    page.put(offset_of!(boot_params, screen_info.pages), &1u16.to_le_bytes());
    // Size and position of red, green, blue and what is left stand side by side.
    let masks = colours.map(|channel| [channel.size, channel.position]);
    page.put(offset_of!(boot_params, screen_info.red_size), masks.as_flattened());
    let rest = if reserved == 0 { [0, 0] } else { [reserved, top % framebuffer.bits_per_pixel.max(1)] };
    page.put(offset_of!(boot_params, screen_info.rsvd_size), &rest);
    page.put_halves(
        offset_of!(boot_params, screen_info.lfb_base),
        offset_of!(boot_params, screen_info.ext_lfb_base),
        framebuffer.base.0,
    );
    if framebuffer.base.0 >> 32 != 0 {
        let capabilities = offset_of!(boot_params, screen_info.capabilities);
        page.put(capabilities, &VIDEO_CAPABILITY_64BIT_BASE.to_le_bytes());
    }
}

fn put_efi(page: &mut Page<'_>, efi: &Efi) {
    let signature = if efi.is_64bit { b"EL64" } else { b"EL32" };
    page.put(offset_of!(boot_params, efi_info.efi_loader_signature), signature);
    page.put_halves(
        offset_of!(boot_params, efi_info.efi_systab),
        offset_of!(boot_params, efi_info.efi_systab_hi),
        efi.system_table.0,
    );
    page.put_halves(
        offset_of!(boot_params, efi_info.efi_memmap),
        offset_of!(boot_params, efi_info.efi_memmap_hi),
        efi.memory_map.start.0,
    );
    let size = efi.memory_map.end.0.saturating_sub(efi.memory_map.start.0) as u32;
    page.put(offset_of!(boot_params, efi_info.efi_memmap_size), &size.to_le_bytes());
    page.put(offset_of!(boot_params, efi_info.efi_memdesc_size), &efi.descriptor_size.to_le_bytes());
    page.put(offset_of!(boot_params, efi_info.efi_memdesc_version), &efi.descriptor_version.to_le_bytes());
    // With it on, GRUB would not have started Vidar, which nobody has signed.
    page.put(offset_of!(boot_params, secure_boot), &[SECURE_BOOT_DISABLED]);
}
