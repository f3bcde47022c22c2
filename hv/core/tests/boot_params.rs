//! boot_params byte by byte, at the offsets of the kernel's boot.rst and zero-page.rst and of struct screen_info and
//! struct efi_info in include/uapi/linux/screen_info.h and arch/x86/include/uapi/asm/bootparam.h.

use std::ops::Range;

use vidar_core::linux::boot_params::{
    ColourField, Contents, Efi, FramebufferInfo, SIZE, ScreenInfo, fill, more_regions, more_regions_size,
};
use vidar_core::linux::bzimage::{BzImage, SetupHeader};
use vidar_core::mem::addr::Hpa;
use vidar_core::mem::map::{MemoryKind, MemoryMap, MemoryRegion};

/// Returns a setup header with every byte set that means nothing to the parser.
fn header() -> SetupHeader {
    let mut file = vec![0xa5; 0x2000];
    let mut put = |offset: usize, bytes: &[u8]| file[offset..offset + bytes.len()].copy_from_slice(bytes);
    put(0x1f1, &[1]);
    put(0x1f4, &16u32.to_le_bytes());
    put(0x1fe, &[0x55, 0xaa, 0xeb, 0x6a]);
    put(0x202, b"HdrS\x0f\x02");
    put(0x211, &[0x01]);
    put(0x230, &0x20_0000u32.to_le_bytes());
    BzImage::parse(&file).unwrap().header
}

fn map(entries: &[(u64, u64, u32)]) -> MemoryMap<'static> {
    MemoryMap::from_regions(entries.iter().map(|&(start, end, raw)| MemoryRegion {
        range: Hpa(start)..Hpa(end),
        kind: MemoryKind::from_raw(raw),
    }))
}

fn info<'a>(header: &'a SetupHeader, map: &'a MemoryMap<'_>) -> Contents<'a> {
    Contents {
        header,
        kernel: Hpa(0x100_0000),
        command_line: Hpa(0x1_2000),
        initrd: None,
        map,
        setup_data: Hpa(0x1_4000),
        rsdp: None,
        screen: None,
        efi: None,
    }
}

fn filled(info: &Contents<'_>) -> [u8; SIZE] {
    let mut page = [0xff; SIZE];
    fill(&mut page, info);
    page
}

fn number(page: &[u8; SIZE], field: Range<usize>) -> u64 {
    page[field].iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte))
}

#[test]
fn header_is_the_kernels_except_for_the_loaders_fields() {
    let (header, map) = (header(), map(&[]));
    let mut info = info(&header, &map);
    info.command_line = Hpa(0x5_1234_5678);
    info.initrd = Some(Hpa(0x1_2345_6000)..Hpa(0x3_2345_6789));
    let page = filled(&info);
    let ours: [(Range<usize>, u64); 11] = [
        (0x1fa..0x1fc, 0xffff),      // vid_mode
        (0x210..0x211, 0x72),        // type_of_loader
        (0x214..0x218, 0x100_0000),  // code32_start
        (0x218..0x21c, 0x2345_6000), // ramdisk_image
        (0x21c..0x220, 0x0000_0789), // ramdisk_size
        (0x228..0x22c, 0x1234_5678), // cmd_line_ptr
        (0x250..0x258, 0),           // setup_data
        (0x0c0..0x0c4, 1),           // ext_ramdisk_image
        (0x0c4..0x0c8, 2),           // ext_ramdisk_size
        (0x0c8..0x0cc, 5),           // ext_cmd_line_ptr
        (0x1e8..0x1e9, 0),           // e820_entries
    ];
    for (field, value) in &ours {
        assert_eq!(number(&page, field.clone()), *value, "{field:#x?}");
    }
    for at in (0..SIZE).filter(|at| !ours.iter().any(|(field, _)| field.contains(at))) {
        let expected = match at {
            0x1f1..0x26c => header.bytes()[at - 0x1f1],
            _ => 0,
        };
        assert_eq!(page[at], expected, "at {at:#x}");
    }
}

#[test]
fn without_an_initrd_its_fields_are_zero() {
    let (header, map) = (header(), map(&[]));
    assert_eq!(number(&filled(&info(&header, &map)), 0x218..0x220), 0);
}

#[test]
fn e820_table_repeats_the_firmwares_entries() {
    let entries = [(0, 0x9_fc00, 1), (0x10_0000, 0x8000_0000, 1), (0xfed0_0000, 0xfed0_0400, 2), (5, 5, 20)];
    let (header, map) = (header(), map(&entries));
    let mut info = info(&header, &map);
    info.rsdp = Some(Hpa(0xf_5a40));
    let page = filled(&info);
    assert_eq!(page[0x1e8], 4);
    assert_eq!(number(&page, 0x70..0x78), 0xf_5a40);
    for (at, (start, end, raw)) in (0x2d0..).step_by(20).zip(entries) {
        assert_eq!(number(&page, at..at + 8), start);
        assert_eq!(number(&page, at + 8..at + 16), end - start);
        assert_eq!(number(&page, at + 16..at + 20), u64::from(raw));
    }
}

#[test]
fn long_map_is_joined_and_continued_in_a_setup_data_record() {
    let header = header();
    let joinable: Vec<_> = (0..300).map(|at| (at * 0x1000, (at + 1) * 0x1000, 1 + at as u32 / 100)).collect();
    let map_of_three = map(&joinable);
    let page = filled(&info(&header, &map_of_three));
    assert_eq!((page[0x1e8], number(&page, 0x250..0x258)), (3, 0));
    assert_eq!(number(&page, 0x2d0 + 20..0x2d0 + 28), 100 * 0x1000);
    assert_eq!(number(&page, 0x2d0 + 28..0x2d0 + 36), 100 * 0x1000);

    let scattered: Vec<_> = (0..300).map(|at| (at * 0x2000, at * 0x2000 + 0x1000, 1)).collect();
    let full = map(&scattered[..128]);
    let page = filled(&info(&header, &full));
    assert_eq!((page[0x1e8], number(&page, 0xcd0 - 20..0xcd0 - 12)), (128, 127 * 0x2000));
    assert_eq!((number(&page, 0x250..0x258), more_regions_size(&full)), (0, 0));

    let too_long = map(&scattered);
    let page = filled(&info(&header, &too_long));
    assert_eq!((page[0x1e8], number(&page, 0x250..0x258)), (128, 0x1_4000));
    let mut record = Vec::new();
    more_regions(&too_long, |bytes| record.extend_from_slice(bytes));
    assert_eq!(record.len(), more_regions_size(&too_long));
    // struct setup_data: next, type SETUP_E820_EXT, length; then the entries.
    assert_eq!(record[..16], [&[0; 8][..], &[1, 0, 0, 0], &(172u32 * 20).to_le_bytes()].concat());
    let last = [&(299u64 * 0x2000).to_le_bytes()[..], &0x1000u64.to_le_bytes(), &[1, 0, 0, 0]].concat();
    assert_eq!((record.len(), &record[record.len() - 20..]), (16 + 172 * 20, &last[..]));
}

#[test]
fn text_screen_is_described() {
    let (header, map) = (header(), map(&[]));
    let mut info = info(&header, &map);
    info.screen = Some(ScreenInfo::Text { columns: 80, rows: 25, cursor: (7, 12) });
    let mut expected = [0; 0x40];
    expected[0x00] = 7; // orig_x
    expected[0x01] = 12; // orig_y
    expected[0x06] = 3; // orig_video_mode
    expected[0x07] = 80; // orig_video_cols
    expected[0x0e] = 25; // orig_video_lines
    expected[0x0f] = 1; // orig_video_isVGA
    expected[0x10] = 16; // orig_video_points
    assert_eq!(filled(&info)[..0x40], expected);
}

fn framebuffer() -> FramebufferInfo {
    FramebufferInfo {
        base: Hpa(0x40_c000_0000),
        width: 1920,
        height: 1080,
        pitch: 8192,
        bits_per_pixel: 32,
        red: ColourField { position: 16, size: 8 },
        green: ColourField { position: 8, size: 8 },
        blue: ColourField { position: 0, size: 8 },
    }
}

#[test]
fn framebuffer_is_described() {
    let (header, map) = (header(), map(&[]));
    let mut info = info(&header, &map);
    info.screen = Some(ScreenInfo::Framebuffer(framebuffer()));
    let page = filled(&info);
    assert_eq!(page[0x0f], 0x23); // VIDEO_TYPE_VLFB
    assert_eq!(number(&page, 0x12..0x14), 1920);
    assert_eq!(number(&page, 0x14..0x16), 1080);
    assert_eq!(number(&page, 0x16..0x18), 32);
    assert_eq!(number(&page, 0x18..0x1c), 0xc000_0000);
    assert_eq!(number(&page, 0x1c..0x20), 135);
    assert_eq!(number(&page, 0x24..0x26), 8192);
    assert_eq!(page[0x26..0x2e], [8, 16, 8, 8, 8, 0, 8, 24]);
    assert_eq!(number(&page, 0x32..0x34), 1);
    assert_eq!(number(&page, 0x36..0x3a), 2); // the base has 64 bits
    assert_eq!(number(&page, 0x3a..0x3e), 0x40);

    info.screen = Some(ScreenInfo::Framebuffer(FramebufferInfo { pitch: 0x1_0000, ..framebuffer() }));
    assert_eq!(filled(&info)[..0x40], [0; 0x40]);
}

#[test]
fn efi_tables_are_described() {
    let (header, map) = (header(), map(&[]));
    let mut info = info(&header, &map);
    info.screen = Some(ScreenInfo::Framebuffer(framebuffer()));
    info.efi = Some(Efi {
        is_64bit: true,
        system_table: Hpa(0x1_7f5e_c018),
        memory_map: Hpa(0x2_0000_1000)..Hpa(0x2_0000_2230),
        descriptor_size: 48,
        descriptor_version: 1,
    });
    let page = filled(&info);
    assert_eq!(page[0x0f], 0x70); // VIDEO_TYPE_EFI
    assert_eq!(number(&page, 0x1c..0x20), 8192 * 1080);
    assert_eq!(&page[0x1c0..0x1c4], b"EL64");
    // System table, descriptor size and version, memory map and its size, upper halves of both addresses.
    let words = [0x7f5e_c018, 48, 1, 0x0000_1000, 0x1230, 1, 2];
    for (at, word) in (0x1c4..).step_by(4).zip(words) {
        assert_eq!(number(&page, at..at + 4), word, "at {at:#x}");
    }
}
