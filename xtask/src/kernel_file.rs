//! Checks the file that a user gives as a guest's kernel. A file that is not a kernel is refused when the ISO is made,
//! by a sentence that says what the file is.

use std::fs;
use std::io::Read;
use std::ops::Range;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use flate2::read::MultiGzDecoder;
use object::read::pe::PeFile64;
use object::{Object, ObjectSection};
use vidar_core::linux::bzimage::{self, BzImage};

use crate::manifest::{Guest, Kernel};

/// The bytes of a kernel that have its signature.
const SIGNATURE: Range<usize> = 0x202..0x206;

/// The largest size of an unpacked kernel. A damaged small file could unpack to any size.
const LARGEST: u64 = 1 << 30;

/// Refuses a file that Vidar could not start as a kernel. Kernels from packages are not checked.
pub fn check(guest: &Guest) -> Result<()> {
    let Kernel::File(file) = &guest.kernel else { return Ok(()) };
    let content = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    image(content).with_context(|| {
        format!("{} cannot be the kernel of the guest \"{}\"", file.display(), guest.name)
    })?;
    Ok(())
}

/// Copies a kernel to its path on an ISO. A kernel that is compressed by gzip is unpacked.
pub fn copy(from: &Path, to: &Path) -> Result<()> {
    let content = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
    let content = if is_gzip(&content) { unpacked(&content)? } else { content };
    fs::write(to, content).with_context(|| format!("cannot write {}", to.display()))
}

/// Returns the kernel that is in a file with this content, or an error that says what the file is.
fn image(content: Vec<u8>) -> Result<Vec<u8>> {
    if is_gzip(&content) {
        let content = unpacked(&content)?;
        ensure!(
            !content.is_empty() && !is_gzip(&content),
            "it is a gzip file without a kernel in it: use the vmlinuz file of a Linux x86 kernel"
        );
        return image(content);
    }
    if let Some(tool) = bzimage::compressed_by(&content) {
        bail!("it is compressed by {tool}: unpack it first, by `{tool} -d`");
    }
    ensure!(
        !content.starts_with(b"\x7fELF"),
        "it is an ELF file, such as the vmlinux of a kernel's build: use arch/x86/boot/bzImage of the same build"
    );
    let program = PeFile64::parse(&*content).ok();
    let sections = program.iter().flat_map(|program| program.sections());
    ensure!(
        !sections.into_iter().any(|section| section.name() == Ok(".linux")),
        "it is a unified kernel image (UKI), an EFI program with a kernel and an initrd in it: take them out of it, by \
         `objcopy -O binary --only-section=.linux UKI vmlinuz`, and with .initrd for the initrd"
    );
    ensure!(
        program.is_none() || content.get(SIGNATURE) == Some(b"HdrS"),
        "it is an EFI program and not a kernel: use the vmlinuz file of a Linux x86 kernel"
    );
    if let Some(name) = other_program(&content) {
        bail!("it is {name}, which only has the form of a Linux kernel: start it without Vidar");
    }
    BzImage::parse(&content)?;
    Ok(content)
}

fn is_gzip(content: &[u8]) -> bool {
    bzimage::compressed_by(content) == Some("gzip")
}

fn unpacked(content: &[u8]) -> Result<Vec<u8>> {
    let mut unpacked = Vec::new();
    let read = MultiGzDecoder::new(content).take(LARGEST).read_to_end(&mut unpacked);
    read.context("it is a damaged gzip file: copy the file again")?;
    Ok(unpacked)
}

/// Returns the name of a known program that has the header of a Linux kernel, but is not one.
fn other_program(content: &[u8]) -> Option<&'static str> {
    /// The places of two fields of the header: its version, and the offset of the kernel's name.
    const VERSION: usize = 0x206;
    const NAME: usize = 0x20e;
    let word = |at: usize| Some(u16::from_le_bytes(content.get(at..at + 2)?.try_into().ok()?));
    if content.get(SIGNATURE) != Some(b"HdrS") {
        return None;
    }
    // iPXE has its name right after a header of version 2.07, where Linux has fields since version 2.08. The name
    // consists of the version only, so iPXE is recognised by the place. See iPXE, src/arch/x86/prefix/lkrnprefix.S.
    if (word(VERSION)?, word(NAME)?) == (0x0207, 0x48) {
        return Some("iPXE");
    }
    // See `memdisk_version` in Syslinux, memdisk/setup.c.
    bzimage::release(content)?.starts_with("MEMDISK ").then_some("memdisk")
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn put(file: &mut [u8], at: usize, bytes: &[u8]) {
        file[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// Returns a kernel with a header of protocol `version` and with the name at `name`.
    fn kernel(version: u16, name: u16) -> Vec<u8> {
        let mut file = vec![0; 0x1000];
        put(&mut file, 0x1f1, &[1]);
        put(&mut file, 0x1f4, &0x40_u32.to_le_bytes());
        put(&mut file, 0x1fe, &[0x55, 0xaa, 0xeb, 0x66]);
        put(&mut file, 0x202, b"HdrS");
        put(&mut file, 0x206, &version.to_le_bytes());
        put(&mut file, 0x20e, &name.to_le_bytes());
        put(&mut file, 0x211, &[1]);
        put(&mut file, 0x230, &[0, 0, 0x20, 0, 1]);
        file
    }

    /// Makes an EFI program with one section of `file`.
    fn efi(mut file: Vec<u8>, section: &[u8]) -> Vec<u8> {
        let at = 0x40;
        put(&mut file, 0, b"MZ");
        put(&mut file, 0x3c, &[at as u8]);
        put(&mut file, at, b"PE\0\0\x64\x86\x01");
        put(&mut file, at + 20, &[0xf0, 0, 0x22]);
        put(&mut file, at + 24, &[0x0b, 2]);
        put(&mut file, at + 24 + 108, &[16]);
        put(&mut file, at + 24 + 0xf0, section);
        file
    }

    fn gzip(content: &[u8]) -> Vec<u8> {
        let mut packed = GzEncoder::new(Vec::new(), Compression::default());
        packed.write_all(content).unwrap();
        packed.finish().unwrap()
    }

    #[test]
    fn kernels_are_accepted() {
        let plain = kernel(0x020c, 0x300);
        assert_eq!(image(plain.clone()).unwrap(), plain);
        assert_eq!(image(gzip(&plain)).unwrap(), plain);
        let with_efi = efi(plain, b".text");
        assert_eq!(image(with_efi.clone()).unwrap(), with_efi);
    }

    #[test]
    fn a_file_that_is_not_a_kernel_is_named() {
        let memdisk = {
            let mut file = kernel(0x0203, 0x3b0);
            put(&mut file, 0x5b0, b"MEMDISK 6.04 20200816\0");
            file
        };
        let mut cut_off = gzip(&kernel(0x020c, 0x300));
        cut_off.truncate(30);
        for (content, sentence) in [
            (Vec::new(), "the kernel is an empty file: copy it again"),
            (cut_off, "it is a damaged gzip file: copy the file again"),
            (gzip(b""), "it is a gzip file without a kernel in it: use the vmlinuz file "),
            (b"\x89LZO...".to_vec(), "it is compressed by lzop: unpack it first, by `lzop -d`"),
            (b"\xfd7zXZ\0...".to_vec(), "it is compressed by xz: unpack it first, by `xz -d`"),
            (b"\x28\xb5\x2f\xfd...".to_vec(), "it is compressed by zstd: unpack it first, by `zstd -d`"),
            (b"\x7fELF...".to_vec(), "it is an ELF file, such as the vmlinux of a kernel's build: "),
            (gzip(b"\x7fELF..."), "it is an ELF file, such as the vmlinux of a kernel's build: "),
            (efi(vec![0; 0x1000], b".linux"), "it is a unified kernel image (UKI), an EFI program with "),
            (
                efi(kernel(0x020c, 0x300), b".linux"),
                "it is a unified kernel image (UKI), an EFI program with ",
            ),
            (efi(vec![0; 0x1000], b".text"), "it is an EFI program and not a kernel: use the vmlinuz file "),
            (kernel(0x0207, 0x48), "it is iPXE, which only has the form of a Linux kernel: "),
            (memdisk, "it is memdisk, which only has the form of a Linux kernel: "),
            (b"GIF89a".to_vec(), "the kernel is not a Linux bzImage "),
            (kernel(0x0207, 0x300), "the kernel speaks boot protocol 2.07 and Vidar needs 2.10 or later: "),
            (kernel(0x020c, 0x300)[..0x700].to_vec(), "the kernel is truncated: "),
        ] {
            let error = format!("{:#}", image(content).unwrap_err());
            assert!(error.starts_with(sentence), "{error}");
        }
    }

    #[test]
    fn a_refusal_names_the_file_and_the_guest() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("vmlinuz");
        let guest = Guest {
            name: "mine".to_owned(),
            title: String::new(),
            kernel: Kernel::File(file.clone()),
            initrds: Vec::new(),
            cmdline: String::new(),
            drivers: Vec::new(),
        };
        fs::write(&file, b"\xfd7zXZ\0...").unwrap();
        let error = format!("{:#}", check(&guest).unwrap_err());
        let sentence = "/vmlinuz cannot be the kernel of the guest \"mine\": it is compressed by xz: ";
        assert!(error.contains(sentence), "{error}");
        let plain = kernel(0x020c, 0x300);
        for content in [plain.clone(), gzip(&plain)] {
            fs::write(&file, content).unwrap();
            check(&guest).unwrap();
            let to = dir.path().join("copy");
            copy(&file, &to).unwrap();
            assert_eq!(fs::read(&to).unwrap(), plain);
        }
    }
}
