//! Wraps the probe in a kernel image that any loader of the Linux boot protocol accepts, and makes images that none
//! should accept.
//!
//! The layout is that of Documentation/arch/x86/boot.rst in the Linux sources, "The Real-Mode Kernel Header".

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use object::read::elf::{FileHeader, ProgramHeader};
use object::{Endianness, elf};

use crate::{build, paths};

const SECTOR: usize = 512;
/// The sectors of set-up code after the boot sector. They hold only the header.
const SETUP_SECTORS: usize = 2;
/// The size of the part before the protected-mode code.
const HEAD: usize = SECTOR * (1 + SETUP_SECTORS);

/// Boot protocol 2.12, which has all fields that a loader of relocatable kernels needs.
const PROTOCOL: u16 = 0x020c;
/// The offset of the first byte after the header of that protocol.
const HEADER_END: usize = 0x268;
const KERNEL_VERSION: &[u8] = b"5.13.0-probe\0";

/// The alignment of the probe, which maps itself with one large page.
const ALIGNMENT: u32 = 2 << 20;
/// The address that Linux prefers too, so that tests of placement meet the usual case.
pub const PREFERRED_ADDRESS: u64 = 16 << 20;

/// The loadable part of a program.
#[derive(Debug, PartialEq, Eq)]
struct Flat {
    /// The bytes from the lowest address on.
    bytes: Vec<u8>,
    /// The size in memory, including the zeros at the end that are not in `bytes`.
    memory: u64,
}

/// Builds the probe and wraps it in a kernel image.
pub fn build() -> Result<Vec<u8>> {
    let program = compile()?;
    let elf = fs::read(&program).with_context(|| format!("cannot read {}", program.display()))?;
    Ok(wrap(&flatten(&elf)?))
}

/// Returns the image cut off in the middle of the protected-mode code, like a download that ended early.
pub fn truncated(image: &[u8]) -> Vec<u8> {
    image[..HEAD + (image.len() - HEAD) / 2].to_vec()
}

/// Returns bytes that are not a kernel image at all.
pub fn garbage() -> Vec<u8> {
    // A linear congruential generator gives bytes without a pattern that are the same in every run.
    let mut state = 1_u32;
    std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    })
    .take(64 * 1024)
    .collect()
}

/// Returns the image with the version of boot protocol 2.09, in which a kernel cannot say where it may be loaded.
pub fn old_protocol(image: &[u8]) -> Vec<u8> {
    let mut image = image.to_vec();
    put(&mut image, 0x206, &0x0209_u16.to_le_bytes());
    image
}

/// Returns the image with one more byte, and with a header according to which there are 16 more.
pub fn rounded_up(image: &[u8]) -> Vec<u8> {
    let paragraphs = ((image.len() - HEAD) / 16) as u32 + 1;
    let mut image = [image, &[0]].concat();
    put(&mut image, 0x1f4, &paragraphs.to_le_bytes());
    image
}

fn compile() -> Result<PathBuf> {
    build::cargo(&["build", "--quiet", "--release", "-p", "probe", "--target", paths::BARE_TARGET])?;
    Ok(paths::target().join(paths::BARE_TARGET).join("release/probe"))
}

/// Puts the loadable segments of a 64-bit ELF program at their places in one piece of memory.
fn flatten(bytes: &[u8]) -> Result<Flat> {
    let header = elf::FileHeader64::<Endianness>::parse(bytes).context("the probe is not an ELF program")?;
    let endian = header.endian()?;
    let segments: Vec<_> =
        header.program_headers(endian, bytes)?.iter().filter(|s| s.p_type(endian) == elf::PT_LOAD).collect();
    let base = segments.iter().map(|s| s.p_vaddr(endian)).min().context("the probe has nothing to load")?;
    if header.e_entry(endian) != base {
        bail!("the probe must begin with its entry, but the entry is at {:#x}", header.e_entry(endian));
    }
    let mut flat = Flat { bytes: Vec::new(), memory: 0 };
    for segment in segments {
        let start = usize::try_from(segment.p_vaddr(endian) - base)?;
        let data =
            segment.data(endian, bytes).ok().context("a segment of the probe lies outside of its file")?;
        flat.bytes.resize(flat.bytes.len().max(start + data.len()), 0);
        flat.bytes[start..start + data.len()].copy_from_slice(data);
        flat.memory = flat.memory.max(start as u64 + segment.p_memsz(endian));
    }
    Ok(flat)
}

/// Puts the header of the boot protocol before the code.
fn wrap(flat: &Flat) -> Vec<u8> {
    let mut image = vec![0; HEAD];
    image.extend_from_slice(&flat.bytes);
    image.resize(image.len().next_multiple_of(16), 0);
    let paragraphs = ((image.len() - HEAD) / 16) as u32;
    let memory = flat.memory.next_multiple_of(4096) as u32;

    put(&mut image, 0x1f1, &[SETUP_SECTORS as u8]);
    put(&mut image, 0x1f4, &paragraphs.to_le_bytes()); // syssize
    put(&mut image, 0x1fe, &0xaa55_u16.to_le_bytes()); // boot_flag
    put(&mut image, 0x200, &[0xeb, (HEADER_END - 0x202) as u8]); // jump: its target is the end of the header
    put(&mut image, 0x202, b"HdrS");
    put(&mut image, 0x206, &PROTOCOL.to_le_bytes());
    put(&mut image, 0x20e, &((HEADER_END - 0x200) as u16).to_le_bytes()); // kernel_version, less 0x200
    put(&mut image, 0x211, &[1]); // loadflags: LOADED_HIGH
    put(&mut image, 0x214, &0x10_0000_u32.to_le_bytes()); // code32_start
    put(&mut image, 0x22c, &0x7fff_ffff_u32.to_le_bytes()); // initrd_addr_max
    put(&mut image, 0x230, &ALIGNMENT.to_le_bytes()); // kernel_alignment
    put(&mut image, 0x234, &[1]); // relocatable_kernel
    put(&mut image, 0x235, &[ALIGNMENT.trailing_zeros() as u8]); // min_alignment
    put(&mut image, 0x238, &2047_u32.to_le_bytes()); // cmdline_size
    put(&mut image, 0x258, &PREFERRED_ADDRESS.to_le_bytes()); // pref_address
    put(&mut image, 0x260, &memory.to_le_bytes()); // init_size
    // There is no real-mode code. A real-mode loader would enter at 0x200, and the jump there leads here.
    put(&mut image, HEADER_END, KERNEL_VERSION);
    image
}

fn put(image: &mut [u8], offset: usize, bytes: &[u8]) {
    image[offset..offset + bytes.len()].copy_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image() -> Vec<u8> {
        wrap(&Flat { bytes: vec![0x90; 1001], memory: 5000 })
    }

    fn u32_at(image: &[u8], offset: usize) -> u32 {
        u32::from_le_bytes(image[offset..offset + 4].try_into().unwrap())
    }

    #[test]
    fn the_header_describes_the_image() {
        let image = image();
        assert_eq!(&image[0x202..0x206], b"HdrS");
        assert_eq!(&image[0x1fe..0x200], [0x55, 0xaa]);
        let head = (usize::from(image[0x1f1]) + 1) * SECTOR;
        assert_eq!(image[head], 0x90, "the code begins after the set-up sectors");
        assert_eq!(image.len() - head, 1008, "whole paragraphs");
        assert_eq!(
            u32_at(&image, 0x1f4) as usize * 16,
            image.len() - head,
            "syssize is the size of the code"
        );
        assert_eq!(u32_at(&image, 0x260), 8192, "init_size is whole pages");
        assert_eq!(1 << image[0x235], u32_at(&image, 0x230), "both alignments say the same");
        let name = usize::from(image[0x20e]) + 0x200;
        assert_eq!(&image[name..name + KERNEL_VERSION.len()], KERNEL_VERSION);
    }

    #[test]
    fn each_damaged_image_has_one_fault() {
        let image = image();
        let short = truncated(&image);
        assert_eq!(short[..], image[..short.len()]);
        assert!(short.len() > HEAD && short.len() < HEAD + u32_at(&image, 0x1f4) as usize * 16);
        let rounded = rounded_up(&image);
        assert_eq!(rounded.len() - HEAD, u32_at(&rounded, 0x1f4) as usize * 16 - 15);
        let old = old_protocol(&image);
        assert_eq!(old[0x206..0x208], [9, 2]);
        assert_eq!(old.iter().zip(&image).filter(|(a, b)| a != b).count(), 1);
        assert_ne!(&garbage()[0x202..0x206], b"HdrS");
        assert_eq!(garbage(), garbage());
    }

    #[test]
    fn segments_are_put_at_their_places() {
        let elf = program(0x1000, 0x1000);
        let flat = flatten(&elf).unwrap();
        assert_eq!(flat, Flat { bytes: vec![1, 2, 3], memory: 0x2000 });
    }

    #[test]
    fn a_program_that_does_not_begin_with_its_entry_is_refused() {
        let error = flatten(&program(0x1000, 0x1001)).unwrap_err().to_string();
        assert_eq!(error, "the probe must begin with its entry, but the entry is at 0x1001");
        assert!(flatten(b"no program").is_err());
    }

    /// Returns an ELF program with one segment, of three bytes in the file and two pages in memory.
    fn program(base: u64, entry: u64) -> Vec<u8> {
        let mut elf = vec![0; 64 + 56];
        put(&mut elf, 0, b"\x7fELF\x02\x01\x01");
        put(&mut elf, 16, &[2, 0, 62, 0, 1]);
        put(&mut elf, 24, &entry.to_le_bytes());
        put(&mut elf, 32, &64_u64.to_le_bytes());
        put(&mut elf, 52, &[64, 0, 56, 0, 1, 0, 64]);
        put(&mut elf, 64, &[1, 0, 0, 0, 7]);
        put(&mut elf, 72, &120_u64.to_le_bytes());
        put(&mut elf, 80, &base.to_le_bytes());
        put(&mut elf, 96, &3_u64.to_le_bytes());
        put(&mut elf, 104, &0x2000_u64.to_le_bytes());
        elf.extend([1, 2, 3]);
        elf
    }
}
