//! Multiboot2 information as GRUB builds it, and malformed information.

mod boot_information;

use proptest::prelude::*;
use vidar_core::linux::boot_params::{FramebufferInfo, ScreenInfo};
use vidar_core::loader::info::BootInfo;
use vidar_core::loader::multiboot2::{TEXT, parse};
use vidar_core::loader::tags::Malformed;
use vidar_core::loader::text::Text;
use vidar_core::mem::addr::Hpa;

use boot_information::information;

const START: Hpa = Hpa(0x1_0000);

fn parsed(words: &[u64]) -> Result<BootInfo<'_>, Malformed> {
    parse(zerocopy::IntoBytes::as_bytes(words), START)
}

fn words(values: &[u32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn area(base: u64, length: u64, kind: u32) -> Vec<u8> {
    [&base.to_le_bytes()[..], &length.to_le_bytes(), &words(&[kind, 0])].concat()
}

#[test]
fn information_of_grub_is_parsed() {
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
    let info = parsed(&words).expect("well formed");
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
fn malformed_information_is_refused() {
    let nothing = information(&[]);
    assert_eq!(parsed(&nothing).expect("a whole frame").memory.usable_bytes(), 0);
    let broken = |words: &[u64]| assert_eq!(parsed(words).err(), Some(Malformed), "{words:x?}");
    broken(&[]);
    broken(&[1 << 20, 0, 0]);
    const END: u64 = 8 << 32;
    assert!(parsed(&[16, END]).is_ok());
    broken(&[8]);
    broken(&[16, 1 | 8 << 32]); // no end tag
    broken(&[24, END, END]); // an end tag before the end
    broken(&[24, 1 | 17 << 32, END]); // a tag beyond the end
    broken(&[24, 1 | 7 << 32, END]); // a tag that is shorter than its header
    let bytes = zerocopy::IntoBytes::as_bytes(&[0u64, 16, END][..]);
    assert!(parse(&bytes[8..], START).is_ok());
    assert_eq!(parse(&[&[0; 4][..], &bytes[8..]].concat()[4..], START).err(), Some(Malformed), "not aligned");
}

#[test]
fn framebuffer_and_efi_tables_are_parsed() {
    let screen = [words(&[0xe000_0000, 0, 4096, 1024, 768]), vec![32, 1, 0, 0, 16, 8, 8, 8, 0, 8]].concat();
    let words = information(&[
        (6, words(&[24, 0])),
        (8, screen),
        (12, 0x7f00_0000u64.to_le_bytes().to_vec()),
        (17, [words(&[48, 1]), vec![9; 96]].concat()),
    ]);
    let info = parsed(&words).expect("well formed");
    assert!(matches!(
        info.screen,
        Some(ScreenInfo::Framebuffer(FramebufferInfo { width: 1024, bits_per_pixel: 32, .. }))
    ));
    let efi = info.efi.expect("both tags are there");
    assert_eq!((efi.system_table, efi.descriptor_size, efi.memory_map.len()), (Hpa(0x7f00_0000), 48, 96));
}

#[test]
fn screen_follows_the_tag_or_the_firmware() {
    let of_kind = |kind: u8| (8, [words(&[0xb_8000, 0, 160, 80, 25]), vec![16, kind, 0, 0]].concat());
    let efi = (12, 0x7f00_0000u64.to_le_bytes().to_vec());
    let screen = |tags: &[(u32, Vec<u8>)]| {
        let words = information(tags);
        parsed(&words).expect("well formed").screen
    };
    assert_eq!(screen(&[]), Some(TEXT));
    assert_eq!(screen(&[of_kind(2)]), Some(TEXT));
    assert_eq!(screen(core::slice::from_ref(&efi)), None, "UEFI without a screen");
    assert_eq!(screen(&[efi, of_kind(2)]), Some(TEXT));
    assert_eq!(screen(&[of_kind(0)]), None, "a palette");
}

fn look(words: &[u64]) {
    if let Ok(info) = parsed(words) {
        let _ = (info.modules.clone().count(), info.memory.usable(), info.boot_services().count());
    }
}

proptest! {
    #[test]
    fn any_tags_can_be_parsed(tags in proptest::collection::vec(
        (0u32..24, proptest::collection::vec(any::<u8>(), 0..80)), 0..12)) {
        let words = information(&tags);
        look(&words);
    }

    #[test]
    fn any_bytes_can_be_parsed(mut words in proptest::collection::vec(any::<u64>(), 2..64), honest in any::<bool>()) {
        if honest {
            words[0] = words.len() as u64 * 8;
        }
        look(&words);
    }
}
