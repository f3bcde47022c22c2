//! boot_params, also called the zero page: the structure in which the boot loader describes the machine to the kernel.
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

/// Size of boot_params in bytes.
pub const SIZE: usize = 4096;
/// Number of entries in the e820 table of boot_params. Further entries go into a setup_data record, see
/// [`more_regions`].
pub const E820_ENTRIES: usize = 128;
/// Size of an e820 entry in bytes.
const E820_ENTRY: usize = size_of::<boot_e820_entry>();
/// Size in bytes of the header of a setup_data record.
const SETUP_DATA_HEAD: usize = size_of::<setup_data>();

const _: () = assert!(size_of::<boot_params>() == SIZE && E820_ENTRY == 20 && SETUP_DATA_HEAD == 16);

/// The boot loader ID of GRUB, which has loaded the kernel. GRUB writes the same number when it boots Linux without
/// Vidar.
const TYPE_OF_LOADER: u8 = 0x72;
/// Normal video mode: the kernel leaves the screen as it is.
const VID_MODE_NORMAL: u16 = 0xffff;

/// The value of efi_secureboot_mode_disabled in include/linux/efi.h.
const SECURE_BOOT_DISABLED: u8 = 2;

/// What the screen shows when the kernel starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScreenInfo {
    /// VGA text mode 3, with characters 16 scan lines high.
    Text {
        /// Number of columns.
        columns: u8,
        /// Number of rows.
        rows: u8,
        /// Column and row of the cursor, both counted from 0.
        cursor: (u8, u8),
    },
    /// A linear framebuffer with direct colour.
    Framebuffer(FramebufferInfo),
}

/// A linear framebuffer with direct colour, as Multiboot and Linux's screen_info describe it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FramebufferInfo {
    /// Address of the first pixel.
    pub base: Hpa,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Number of bytes from the start of one line to the start of the next.
    pub pitch: u32,
    /// Number of bits in a pixel, including unused ones.
    pub bits_per_pixel: u8,
    /// The bits of a pixel that hold red.
    pub red: ColourField,
    /// The bits of a pixel that hold green.
    pub green: ColourField,
    /// The bits of a pixel that hold blue.
    pub blue: ColourField,
}

/// The bits of a pixel that hold one colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ColourField {
    /// Number of the lowest bit.
    pub position: u8,
    /// Number of bits.
    pub size: u8,
}

/// The firmware's EFI tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Efi {
    /// True if the firmware is 64-bit.
    pub is_64bit: bool,
    /// Address of the EFI system table.
    pub system_table: Hpa,
    /// Where the EFI memory map lies.
    pub memory_map: Range<Hpa>,
    /// Number of bytes from one descriptor of the memory map to the next.
    pub descriptor_size: u32,
    /// Version of the descriptors.
    pub descriptor_version: u32,
}

/// Everything that [`fill`] writes into boot_params.
#[derive(Debug, Clone)]
pub struct Contents<'a> {
    /// The setup header of the kernel file.
    pub header: &'a SetupHeader,
    /// Load address of the kernel, below 4 GiB.
    pub kernel: Hpa,
    /// Address of the command line, which ends with a zero byte.
    pub command_line: Hpa,
    /// Where the initrd lies; `None` without one.
    pub initrd: Option<Range<Hpa>>,
    /// The memory map, in which Vidar's memory is reserved.
    pub map: &'a MemoryMap<'a>,
    /// Address of the record that [`more_regions`] writes. It is used only if [`more_regions_size`] is not 0.
    pub setup_data: Hpa,
    /// Address of the ACPI RSDP, or of the copy that the boot loader made; `None` if there is none.
    pub rsdp: Option<Hpa>,
    /// What the screen shows; `None` without a screen.
    pub screen: Option<ScreenInfo>,
    /// The EFI tables; `None` on a BIOS.
    pub efi: Option<Efi>,
}

/// Writes boot_params for this kernel on this machine to `page`, over whatever it held.
pub fn fill(page: &mut [u8; SIZE], info: &Contents<'_>) {
    page.fill(0);
    let mut page = Page(page);
    page.put(offset_of!(boot_params, hdr), info.header.bytes());
    put_header(&mut page, info);
    put_e820(&mut page, info.map);
    if let Some(rsdp) = info.rsdp {
        page.put(offset_of!(boot_params, acpi_rsdp_addr), &rsdp.0.to_le_bytes());
    }
    match info.screen {
        Some(ScreenInfo::Text { columns, rows, cursor }) => put_text(&mut page, columns, rows, cursor),
        Some(ScreenInfo::Framebuffer(framebuffer)) => {
            put_framebuffer(&mut page, &framebuffer, info.efi.is_some());
        }
        None => {}
    }
    if let Some(efi) = &info.efi {
        put_efi(&mut page, efi);
    }
}

/// Changes the cursor of a text screen in boot_params that [`fill`] has written. `position` holds column and row.
pub fn set_cursor(page: &mut [u8; SIZE], position: (u8, u8)) {
    let (column, row) = position;
    let mut page = Page(page);
    page.put(offset_of!(boot_params, screen_info.orig_x), &[column]);
    page.put(offset_of!(boot_params, screen_info.orig_y), &[row]);
}

/// The bytes of boot_params while they are written. All offsets and sizes are constants inside the page; a write beyond
/// it would be dropped.
struct Page<'a>(&'a mut [u8; SIZE]);

impl Page<'_> {
    fn put(&mut self, offset: usize, bytes: &[u8]) {
        let field = self.0.get_mut(offset..).and_then(|rest| rest.get_mut(..bytes.len()));
        if let Some(field) = field {
            field.copy_from_slice(bytes);
        }
    }

    /// Writes the low and the high 32 bits of an address or a size to their two fields.
    fn put_halves(&mut self, low: usize, high: usize, value: u64) {
        self.put(low, &(value as u32).to_le_bytes());
        self.put(high, &((value >> 32) as u32).to_le_bytes());
    }
}

/// Writes the fields of the setup header that the boot protocol leaves to the boot loader.
fn put_header(page: &mut Page<'_>, info: &Contents<'_>) {
    page.put(offset_of!(boot_params, hdr.vid_mode), &VID_MODE_NORMAL.to_le_bytes());
    page.put(offset_of!(boot_params, hdr.type_of_loader), &[TYPE_OF_LOADER]);
    // loadflags stay as the kernel file has them: LOADED_HIGH has been checked, and the other flags concern the
    // real-mode code.
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

/// Returns the e820 entries for the kernel, each as the firmware gave it. Only if there are more than boot_params has
/// room for, neighbours of the same kind are joined, as Linux's EFI stub does (setup_e820 in
/// drivers/firmware/efi/libstub/x86-stub.c).
fn e820_regions<'a>(map: &'a MemoryMap<'_>) -> impl Iterator<Item = MemoryRegion> + 'a {
    let too_many = map.iter().nth(E820_ENTRIES).is_some();
    map.regions(too_many)
}

fn put_e820(page: &mut Page<'_>, map: &MemoryMap<'_>) {
    let mut entries = 0;
    for (index, region) in e820_regions(map).take(E820_ENTRIES).enumerate() {
        page.put(offset_of!(boot_params, e820_table) + index * E820_ENTRY, &e820_entry(&region));
        entries += 1;
    }
    page.put(offset_of!(boot_params, e820_entries), &[entries]);
}

/// Returns the size in bytes of the setup_data record for the e820 entries that do not fit into boot_params; 0 if all
/// of them fit.
pub fn more_regions_size(map: &MemoryMap<'_>) -> usize {
    match e820_regions(map).skip(E820_ENTRIES).count() {
        0 => 0,
        count => SETUP_DATA_HEAD + count * E820_ENTRY,
    }
}

/// Passes the setup_data record for the e820 entries that do not fit into boot_params to `put`, piece by piece; nothing
/// if all of them fit. Linux, Documentation/arch/x86/boot.rst, "setup_data", SETUP_E820_EXT.
pub fn more_regions(map: &MemoryMap<'_>, mut put: impl FnMut(&[u8])) {
    let Some(length) = more_regions_size(map).checked_sub(SETUP_DATA_HEAD) else { return };
    put(&0u64.to_le_bytes()); // next: there is no further record
    put(&SETUP_E820_EXT.to_le_bytes());
    put(&(length as u32).to_le_bytes());
    e820_regions(map).skip(E820_ENTRIES).for_each(|region| put(&e820_entry(&region)));
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

/// Writes screen_info for a framebuffer. Writes nothing if a dimension does not fit into its field: no screen is better
/// than a garbled one.
fn put_framebuffer(page: &mut Page<'_>, framebuffer: &FramebufferInfo, efi: bool) {
    let narrow = |value: u32| u16::try_from(value).ok();
    let dimensions = (narrow(framebuffer.width), narrow(framebuffer.height), narrow(framebuffer.pitch));
    let (Some(width), Some(height), Some(pitch)) = dimensions else { return };
    let bytes = u32::from(pitch) * u32::from(height);
    // The EFI framebuffer driver expects the size in bytes, the VESA driver in blocks of 64 KiB.
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
    // The size and the position of red, green, blue and the reserved bits follow each other.
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
    // With Secure Boot on, GRUB would not have started Vidar, which is not signed.
    page.put(offset_of!(boot_params, secure_boot), &[SECURE_BOOT_DISABLED]);
}
