//! The disks of a machine, which are files that the guest reads and writes.

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Context, Result, ensure};

/// How a disk is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bus {
    /// As virtio-blk over PCI.
    Virtio,
    /// At SATA, with an AHCI controller of its own.
    Ahci,
    /// As an NVMe drive.
    Nvme,
    /// At USB, with an xHCI controller of its own.
    Usb,
}

/// The format of a disk's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// The disk's bytes.
    Raw,
    /// QEMU's own format.
    Qcow2,
}

impl Format {
    /// QEMU's name for the format.
    pub fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
        }
    }
}

/// A disk of a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// The absolute path of the file.
    pub path: PathBuf,
    /// The format of the file.
    pub format: Format,
    /// How the disk is attached.
    pub bus: Bus,
}

/// The argument by which a user names a disk: FILE, FILE:virtio or FILE:ahci.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskArgument {
    path: PathBuf,
    bus: Bus,
}

impl FromStr for DiskArgument {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (path, bus) = if let Some(path) = text.strip_suffix(":ahci") {
            (path, Bus::Ahci)
        } else {
            (text.strip_suffix(":virtio").unwrap_or(text), Bus::Virtio)
        };
        Ok(Self { path: path.into(), bus })
    }
}

impl DiskArgument {
    /// Returns the disk, if its file can be read and written and is not empty.
    pub fn open(&self) -> Result<Disk> {
        let shown = self.path.display();
        let open = || File::options().read(true).write(true).open(&self.path);
        let mut file = open().with_context(|| {
            format!("cannot open the disk {shown} for reading and writing (`truncate -s 10G FILE` makes an empty one)")
        })?;
        let mut magic = [0; 4];
        let is_whole = file.read_exact(&mut magic);
        ensure!(
            is_whole.is_ok(),
            "the disk {shown} is empty: `truncate -s 10G {shown}` makes it a disk of 10 GiB"
        );
        let format = if magic == *b"QFI\xfb" { Format::Qcow2 } else { Format::Raw };
        let path = self.path.canonicalize().with_context(|| format!("cannot find the disk {shown}"))?;
        Ok(Disk { path, format, bus: self.bus })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn an_argument_may_name_a_bus() {
        let named = |text: &str| text.parse::<DiskArgument>().unwrap();
        let is = |path: &str, bus| DiskArgument { path: path.into(), bus };
        assert_eq!(named("a.img"), is("a.img", Bus::Virtio));
        assert_eq!(named("/x/a,b:virtio"), is("/x/a,b", Bus::Virtio));
        assert_eq!(named("a:b:ahci"), is("a:b", Bus::Ahci));
    }

    #[test]
    fn a_disk_must_be_a_file_that_is_not_empty() {
        let dir = tempfile::tempdir().unwrap();
        let open = |name: &str| DiskArgument { path: dir.path().join(name), bus: Bus::Virtio }.open();
        fs::write(dir.path().join("empty"), "").unwrap();
        fs::write(dir.path().join("raw"), [0; 512]).unwrap();
        fs::write(dir.path().join("qcow2"), b"QFI\xfb\0\0\0\x03").unwrap();
        assert!(open("none").unwrap_err().to_string().contains("cannot open the disk"));
        assert!(open(".").is_err(), "a folder is not a disk");
        assert!(open("empty").unwrap_err().to_string().contains("is empty"));
        assert_eq!(open("raw").unwrap().format, Format::Raw);
        assert_eq!(open("qcow2").unwrap().format, Format::Qcow2);
    }
}
