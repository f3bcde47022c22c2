//! Packs the initramfs of the built-in guest: busybox, vidarctl and a script. The result has the same bytes every time.

use std::fs;
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use cpio::newc::{Builder, trailer};
use flate2::{Compression, GzBuilder};

const DIRECTORY: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const FILE: u32 = 0o100_644;
const CHARACTER_DEVICE: u32 = 0o020_600;

/// Folders that the script uses as mount points, or that programs expect.
const FOLDERS: &[&str] = &["bin", "dev", "proc", "sys", "tmp"];

/// Returns the compressed archive. `init` is the script; the others are static programs.
pub fn pack(busybox: &Path, vidarctl: Option<&Path>, init: &Path) -> Result<Vec<u8>> {
    let mut archive = Archive { bytes: Vec::new(), next_inode: 1 };
    for folder in FOLDERS {
        archive.add(folder, DIRECTORY, None, &[])?;
    }
    // The kernel opens /dev/console for the first program before this program can mount anything.
    archive.add("dev/console", CHARACTER_DEVICE, Some((5, 1)), &[])?;
    archive.add("init", PROGRAM, None, &read(init)?)?;
    archive.add("bin/busybox", PROGRAM, None, &read(busybox)?)?;
    if let Some(vidarctl) = vidarctl {
        archive.add("bin/vidarctl", PROGRAM, None, &read(vidarctl)?)?;
    }
    archive.compress()
}

/// Returns a compressed archive of `folders` and `files`. The kernel also unpacks it if it follows another archive.
pub fn pack_files(folders: &[&str], files: &[(String, Vec<u8>)]) -> Result<Vec<u8>> {
    let mut archive = Archive { bytes: Vec::new(), next_inode: 1 };
    for folder in folders {
        archive.add(folder, DIRECTORY, None, &[])?;
    }
    for (name, content) in files {
        archive.add(name, FILE, None, content)?;
    }
    archive.compress()
}

/// Returns an uncompressed archive of `folders` and `programs`, which a kernel unpacks quickly. Its length is a
/// multiple of four bytes, so that another archive may follow.
pub fn pack_plain(folders: &[String], programs: &[(String, Vec<u8>)]) -> Result<Vec<u8>> {
    let mut archive = Archive { bytes: Vec::new(), next_inode: 1 };
    for folder in folders {
        archive.add(folder, DIRECTORY, None, &[])?;
    }
    for (name, content) in programs {
        archive.add(name, PROGRAM, None, content)?;
    }
    let mut bytes = trailer(archive.bytes)?;
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    Ok(bytes)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

struct Archive {
    bytes: Vec<u8>,
    next_inode: u32,
}

impl Archive {
    fn add(&mut self, name: &str, mode: u32, device: Option<(u32, u32)>, content: &[u8]) -> Result<()> {
        let mut entry = Builder::new(name).ino(self.next_inode).mode(mode).nlink(1).mtime(0);
        if let Some((major, minor)) = device {
            entry = entry.rdev_major(major).rdev_minor(minor);
        }
        let size = u32::try_from(content.len()).with_context(|| format!("{name} is too large"))?;
        let mut writer = entry.write(&mut self.bytes, size);
        writer.write_all(content)?;
        writer.finish()?;
        self.next_inode += 1;
        Ok(())
    }

    /// Ends and compresses the archive. With a zero time stamp and without a file name, the result is always the same.
    fn compress(self) -> Result<Vec<u8>> {
        let mut gzip = GzBuilder::new().mtime(0).write(Vec::new(), Compression::best());
        gzip.write_all(&trailer(self.bytes)?)?;
        Ok(gzip.finish()?)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn the_archive_is_complete_and_the_same_every_time() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str| {
            let path = dir.path().join(name);
            fs::write(&path, name).unwrap();
            path
        };
        let (busybox, vidarctl, init) = (file("busybox"), file("vidarctl"), file("init"));
        let packed = pack(&busybox, Some(&vidarctl), &init).unwrap();
        assert_eq!(packed, pack(&busybox, Some(&vidarctl), &init).unwrap());

        let mut bytes = Vec::new();
        flate2::read::GzDecoder::new(&packed[..]).read_to_end(&mut bytes).unwrap();
        let mut names = Vec::new();
        let mut rest = &bytes[..];
        loop {
            let mut reader = cpio::newc::Reader::new(rest).unwrap();
            if reader.entry().is_trailer() {
                break;
            }
            let name = reader.entry().name().to_owned();
            let mut content = String::new();
            reader.read_to_string(&mut content).unwrap();
            if content.is_empty() {
                assert_eq!(reader.entry().mode() == CHARACTER_DEVICE, name == "dev/console");
            } else {
                assert!(name.ends_with(&content));
            }
            names.push(name);
            rest = reader.finish().unwrap();
        }
        assert_eq!(names.len(), FOLDERS.len() + 4);
        assert!(names.iter().any(|name| name == "init") && names.iter().any(|name| name == "bin/vidarctl"));
    }
}
