//! The kernel file: a Linux bzImage, whose header is checked before any of it is used.
//!
//! Linux, Documentation/arch/x86/boot.rst, "The Real-Mode Kernel Header". The header has the same offset in the file
//! and in boot_params, so the offsets of boot_params are used for both.

use core::mem::offset_of;
use core::ops::Range;

use linux_raw_sys::bootparam::{LOADED_HIGH, boot_params};

use crate::mem::addr::{Hpa, PAGE_SIZE};

/// Unit of the real-mode code's size, in bytes.
const SECTOR: usize = 512;
/// Unit of the protected-mode code's size, in bytes.
const PARAGRAPH: u64 = 16;
/// Offset of the header in the file and in boot_params.
const HEADER: usize = offset_of!(boot_params, hdr);
/// Offset of the end of the room that boot_params has for the header.
const HEADER_LIMIT: usize = offset_of!(boot_params, edd_mbr_sig_buffer);
/// Offset of the end of the last header field that Vidar reads.
const NEEDED: usize = offset_of!(boot_params, hdr.init_size) + size_of::<u32>();
/// Protocol 2.10 introduced pref_address and init_size, which are needed to place a kernel.
const OLDEST_PROTOCOL: u16 = 0x020a;

// These offsets are the ones in boot.rst.
const _: () = assert!(HEADER == 0x1f1 && HEADER_LIMIT == 0x290 && NEEDED == 0x264);

/// The reasons why a file is not a kernel that Vidar can start. Each is displayed as a sentence for the user.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BzImageError {
    /// The file is empty.
    #[error("the kernel is an empty file: copy it again")]
    Empty,
    /// The whole file is compressed. The value names the program that unpacks it.
    #[error(
        "the kernel is compressed as a whole (by {0}), or it is an initrd: give GRUB the vmlinuz file itself as the first \
         module, unpacked"
    )]
    Compressed(&'static str),
    /// The file is a kernel or a program in another format, which the value names.
    #[error(
        "the kernel is {0}: give GRUB the vmlinuz file of the same kernel, a bzImage, as the first module"
    )]
    OtherFormat(&'static str),
    /// The file is a cpio archive, as an initrd is.
    #[error(
        "the kernel is an initrd (a cpio archive): give GRUB the vmlinuz file as the first module, and the initrd after it"
    )]
    Initrd,
    /// The file has no "HdrS" signature, or is too short to hold one.
    #[error(
        "the kernel is not a Linux bzImage (no \"HdrS\" signature): give GRUB the vmlinuz file of a Linux x86 kernel \
         as the first module"
    )]
    NotBzImage,
    /// The kernel's boot protocol is older than 2.10. The value is its version, major number in the high byte.
    #[error(
        "the kernel speaks boot protocol {}.{:02} and Vidar needs 2.10 or later: use Linux 2.6.31 or newer",
        .0 >> 8, .0 & 0xff
    )]
    OldProtocol(u16),
    /// The kernel is a zImage.
    #[error("the kernel is a zImage, which loads below 1 MiB: use the bzImage of the same kernel")]
    LoadedLow,
    /// The file is shorter than its header says.
    #[error(
        "the kernel is truncated: its header promises {promised} bytes and the module has {present}; \
         copy the file again"
    )]
    Truncated {
        /// Size of the file in bytes according to its header.
        promised: u64,
        /// Actual size of the file in bytes.
        present: u64,
    },
    /// A header field has a value that no kernel gives it. The value of this variant says which field.
    #[error("the kernel is damaged: {0}; copy the file again")]
    Damaged(&'static str),
}

/// The setup header of a kernel, byte for byte.
#[derive(Debug, Clone, Copy)]
pub struct SetupHeader {
    bytes: [u8; HEADER_LIMIT - HEADER],
    length: usize,
}

impl SetupHeader {
    /// Returns the header's bytes, which belong at offset 0x1F1 of boot_params.
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

/// What the header of a kernel file says.
#[derive(Debug, Clone)]
pub struct BzImage {
    /// A copy of the header, which stays valid when the file is overwritten.
    pub header: SetupHeader,
    /// The version of the boot protocol, major number in the high byte; at least 2.10.
    pub version: u16,
    /// The bytes of the file that are loaded and entered: the protected-mode code.
    pub payload: Range<usize>,
    /// True if the kernel can run at other addresses than `pref_address`.
    pub relocatable: bool,
    /// The load address must be a multiple of this: a power of two, at least the size of a page.
    pub alignment: u64,
    /// The load address that the kernel prefers.
    pub pref_address: Hpa,
    /// Number of bytes from its load address on that the kernel uses before it reads the memory map; at least the size
    /// of the payload.
    pub init_size: u64,
    /// The highest address that the last byte of the initrd may have.
    pub initrd_addr_max: Hpa,
    /// Length in bytes of the longest command line, without the zero byte at its end.
    pub cmdline_size: u32,
}

impl BzImage {
    /// Reads and checks the header of a kernel file.
    ///
    /// # Errors
    /// A [`BzImageError`] that says why the file is not a kernel that Vidar can start.
    pub fn parse(file: &[u8]) -> Result<Self, BzImageError> {
        if bytes_at(file, offset_of!(boot_params, hdr.header)) != Some(*b"HdrS") {
            return Err(error_for(file));
        }
        let truncated = |promised: u64| BzImageError::Truncated { promised, present: file.len() as u64 };
        macro_rules! field {
            ($type:ty, $field:ident) => {
                bytes_at(file, offset_of!(boot_params, hdr.$field))
                    .map(<$type>::from_le_bytes)
                    .ok_or(truncated(NEEDED as u64))
            };
        }

        let version = field!(u16, version)?;
        if version < OLDEST_PROTOCOL {
            return Err(BzImageError::OldProtocol(version));
        }
        if field!(u16, boot_flag)? != 0xaa55 {
            return Err(BzImageError::Damaged("its boot sector does not end in 0xAA55"));
        }
        if u32::from(field!(u8, loadflags)?) & LOADED_HIGH == 0 {
            return Err(BzImageError::LoadedLow);
        }

        let relocatable = field!(u8, relocatable_kernel)? != 0;
        let alignment = u64::from(field!(u32, kernel_alignment)?);
        if relocatable && !alignment.is_power_of_two() {
            return Err(BzImageError::Damaged("its kernel_alignment is not a power of two"));
        }

        let [_, jump_offset] = field!(u16, jump)?.to_le_bytes();
        let header_end = offset_of!(boot_params, hdr.header) + usize::from(jump_offset);
        if !(NEEDED..=HEADER_LIMIT).contains(&header_end) {
            return Err(BzImageError::Damaged("its setup header does not have the length of its protocol"));
        }

        let sectors = match field!(u8, setup_sects)? {
            0 => 4,
            sectors => usize::from(sectors),
        };
        let payload_bytes = u64::from(field!(u32, syssize)?) * PARAGRAPH;
        if payload_bytes == 0 {
            return Err(BzImageError::Damaged("its header promises no code"));
        }
        // setup_sects does not count the boot sector.
        let start = (1 + sectors) * SECTOR;
        let promised = start as u64 + payload_bytes;
        // syssize is rounded up to whole paragraphs, so the last one may be incomplete.
        let end = usize::try_from(promised).ok().map(|end| end.min(file.len()));
        let end = end.filter(|end| promised - (*end as u64) < PARAGRAPH).ok_or(truncated(promised))?;
        let header = file.get(HEADER..header_end).ok_or(truncated(promised))?;

        Ok(Self {
            header: copy(header),
            version,
            payload: start..end,
            relocatable,
            alignment: if relocatable { alignment.max(PAGE_SIZE) } else { PAGE_SIZE },
            pref_address: match field!(u64, pref_address)? {
                0 => Hpa(0x10_0000), // the protocol's usual address, for a kernel without a preference
                address => Hpa(address),
            },
            init_size: u64::from(field!(u32, init_size)?).max(payload_bytes),
            initrd_addr_max: Hpa(u64::from(field!(u32, initrd_addr_max)?)),
            cmdline_size: field!(u32, cmdline_size)?,
        })
    }
}

/// The bytes that files in a format begin with, and the name of the format.
type Format = (&'static [u8], &'static str);

fn format_of(file: &[u8], formats: &[Format]) -> Option<&'static str> {
    formats.iter().find(|(magic, _)| file.starts_with(magic)).map(|(_, name)| *name)
}

/// Returns the program that unpacks the file if all of it is compressed, and `None` otherwise. The formats are those in
/// lib/decompress.c of Linux.
pub fn compressed_by(file: &[u8]) -> Option<&'static str> {
    const FORMATS: [Format; 8] = [
        (b"\x1f\x8b", "gzip"),
        (b"BZh", "bzip2"),
        (b"\x5d\0\0", "lzma"),
        (b"\xfd7zXZ\0", "xz"),
        (b"\x89LZO", "lzop"),
        (b"\x02\x21\x4c\x18", "lz4"),
        (b"\x04\x22\x4d\x18", "lz4"),
        (b"\x28\xb5\x2f\xfd", "zstd"),
    ];
    format_of(file, &FORMATS)
}

/// Returns the error for a file that is not a bzImage, by its first bytes.
fn error_for(file: &[u8]) -> BzImageError {
    const OTHER: [Format; 2] = [
        (b"\x7fELF", "an ELF program, such as the vmlinux of a build"),
        (b"MZ", "an EFI program and no Linux kernel, such as a unified kernel image (UKI)"),
    ];
    if file.is_empty() {
        BzImageError::Empty
    } else if file.starts_with(b"0707") {
        BzImageError::Initrd
    } else if let Some(name) = compressed_by(file) {
        BzImageError::Compressed(name)
    } else if let Some(name) = format_of(file, &OTHER) {
        BzImageError::OtherFormat(name)
    } else {
        BzImageError::NotBzImage
    }
}

/// Returns the release and build of the kernel as text for people; `None` if the file does not contain it.
pub fn release(file: &[u8]) -> Option<&str> {
    let offset = u16::from_le_bytes(bytes_at(file, offset_of!(boot_params, hdr.kernel_version))?);
    let text = file.get(usize::from(offset).checked_add(SECTOR)?..)?;
    let text = text.split(|&byte| byte == 0).next()?;
    core::str::from_utf8(text).ok().filter(|text| offset != 0 && !text.is_empty() && text.len() < 256)
}

fn copy(header: &[u8]) -> SetupHeader {
    let mut bytes = [0; HEADER_LIMIT - HEADER];
    for (to, from) in bytes.iter_mut().zip(header) {
        *to = *from;
    }
    SetupHeader { bytes, length: header.len() }
}

fn bytes_at<const N: usize>(file: &[u8], offset: usize) -> Option<[u8; N]> {
    file.get(offset..)?.first_chunk().copied()
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;
    use alloc::vec::Vec;

    use super::*;

    /// Returns a kernel file as a distribution ships it, with its fields at the offsets in boot.rst.
    fn kernel() -> Vec<u8> {
        let mut file = vec![0; 0x3000 + 0x10 * 0x100];
        let mut put = |offset: usize, bytes: &[u8]| file[offset..offset + bytes.len()].copy_from_slice(bytes);
        put(0x1f1, &[0x17]); // setup_sects
        put(0x1f4, &0x100u32.to_le_bytes()); // syssize
        put(0x1fe, &[0x55, 0xaa]);
        put(0x200, &[0xeb, 0x6a]); // jump
        put(0x202, b"HdrS");
        put(0x206, &0x020fu16.to_le_bytes());
        put(0x20e, &0x0100u16.to_le_bytes()); // kernel_version
        put(0x211, &[0x01]); // loadflags
        put(0x22c, &0x7fff_ffffu32.to_le_bytes()); // initrd_addr_max
        put(0x230, &0x20_0000u32.to_le_bytes()); // kernel_alignment
        put(0x234, &[1]); // relocatable_kernel
        put(0x238, &2047u32.to_le_bytes()); // cmdline_size
        put(0x258, &0x100_0000u64.to_le_bytes()); // pref_address
        put(0x260, &0x200_0000u32.to_le_bytes()); // init_size
        put(0x300, b"6.1.0 (someone@somewhere) #1\0");
        file
    }

    fn error_with(offset: usize, bytes: &[u8]) -> BzImageError {
        let mut file = kernel();
        file[offset..offset + bytes.len()].copy_from_slice(bytes);
        BzImage::parse(&file).expect_err("a damaged file must be refused")
    }

    #[test]
    fn header_fields_are_read() {
        let file = kernel();
        let image = BzImage::parse(&file).unwrap();
        assert_eq!(image.version, 0x020f);
        assert_eq!(image.payload, 0x3000..0x4000);
        assert_eq!((image.relocatable, image.alignment), (true, 0x20_0000));
        assert_eq!((image.pref_address, image.init_size), (Hpa(0x100_0000), 0x200_0000));
        assert_eq!((image.initrd_addr_max, image.cmdline_size), (Hpa(0x7fff_ffff), 2047));
        assert_eq!(image.header.bytes(), &file[0x1f1..0x26c]);
        assert_eq!(release(&file), Some("6.1.0 (someone@somewhere) #1"));
    }

    #[test]
    fn zero_and_unused_fields_have_defaults() {
        let mut file = kernel();
        file[0x1f1] = 0;
        file[0x234] = 0;
        file[0x230] = 3;
        file[0x258..0x264].fill(0);
        let image = BzImage::parse(&file).unwrap();
        assert_eq!(image.payload, 5 * 512..5 * 512 + 0x1000);
        assert_eq!((image.relocatable, image.alignment), (false, PAGE_SIZE));
        assert_eq!((image.pref_address, image.init_size), (Hpa(0x10_0000), 0x1000));
    }

    #[test]
    fn each_bad_field_has_its_error() {
        assert_eq!(BzImage::parse(b"no kernel").err(), Some(BzImageError::NotBzImage));
        assert_eq!(error_with(0x202, b"Hdr?"), BzImageError::NotBzImage);
        assert_eq!(error_with(0x206, &[9, 2]), BzImageError::OldProtocol(0x0209));
        assert_eq!(
            error_with(0x206, &[9, 2]).to_string(),
            "the kernel speaks boot protocol 2.09 and Vidar needs 2.10 or later: use Linux 2.6.31 or newer"
        );
        assert_eq!(error_with(0x211, &[0x80]), BzImageError::LoadedLow);
        for (offset, bytes) in [(0x1fe, &[0, 0]), (0x230, &[1, 0]), (0x1f4, &[0, 0]), (0x200, &[0xeb, 0x10])]
        {
            assert!(matches!(error_with(offset, bytes), BzImageError::Damaged(_)), "{offset:#x}");
        }
    }

    #[test]
    fn errors_name_the_format_of_other_files() {
        let sentence = |file: &[u8]| BzImage::parse(file).expect_err("no bzImage").to_string();
        assert_eq!(sentence(b""), "the kernel is an empty file: copy it again");
        assert_eq!(
            sentence(b"\x1f\x8b\x08\0"),
            "the kernel is compressed as a whole (by gzip), or it is an initrd: give GRUB the vmlinuz file itself as the \
             first module, unpacked"
        );
        assert_eq!(
            sentence(b"\x7fELF\x02\x01"),
            "the kernel is an ELF program, such as the vmlinux of a build: give GRUB the vmlinuz file of the same kernel, a \
             bzImage, as the first module"
        );
        assert!(sentence(b"MZ\x90\0").contains("unified kernel image"));
        assert!(sentence(b"070701").contains("an initrd"));
        // A bzImage with an EFI stub also begins with the signature of an EFI program.
        let mut stub = kernel();
        stub[..2].copy_from_slice(b"MZ");
        assert!(BzImage::parse(&stub).is_ok());
    }

    #[test]
    #[cfg_attr(miri, ignore = "16,000 files take minutes there")]
    fn truncated_file_is_refused_unless_only_its_last_paragraph_is_incomplete() {
        let file = kernel();
        for length in 0..file.len() - 15 {
            assert!(BzImage::parse(&file[..length]).is_err());
        }
        for length in file.len() - 15..=file.len() {
            assert_eq!(BzImage::parse(&file[..length]).unwrap().payload, 0x3000..length);
        }
        let cut = BzImage::parse(&file[..0x3ff0]).expect_err("16 bytes are missing");
        assert_eq!(
            cut.to_string(),
            "the kernel is truncated: its header promises 16384 bytes and the module has 16368; copy the file again"
        );
    }
}
