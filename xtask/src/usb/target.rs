//! What the ISO is written to: a disk, or a plain file that stands for one.

use std::ffi::OsStr;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rustix::fs::{Advice, OFlags, fadvise};
use rustix::io::Errno;

use super::device::Device;
use super::units::in_units;

/// Where the ISO is written.
#[derive(Debug)]
pub struct Target {
    /// The absolute path, without symbolic links.
    pub path: PathBuf,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Disk(Box<Device>),
    /// A plain file, with its size.
    File(u64),
}

impl Target {
    /// Finds out what is at `path`.
    pub fn look(path: &Path) -> Result<Self> {
        let shown = path.display();
        let found = path.canonicalize().and_then(|path| Ok((fs::metadata(&path)?, path)));
        let (found, path) = match found {
            Err(error) if error.kind() == io::ErrorKind::NotFound => bail!(
                "there is no {shown}: `lsblk` lists the disks, and `truncate -s 1G FILE` makes a file that stands for one"
            ),
            found => found.with_context(|| format!("cannot look at {shown}"))?,
        };
        let kind = if found.file_type().is_block_device() {
            Kind::Disk(Box::new(Device::look(&path)?))
        } else if found.is_file() {
            Kind::File(found.len())
        } else if found.is_dir() {
            bail!("{shown} is a folder: name the disk itself, such as /dev/sdX (`lsblk` lists them)");
        } else {
            bail!("{shown} is neither a disk nor a file: name a disk (`lsblk` lists them)");
        };
        Ok(Self { path, kind })
    }

    /// Refuses a target that must not be overwritten.
    pub fn check(&self, any_disk: bool) -> Result<()> {
        match &self.kind {
            Kind::Disk(device) => device.check(any_disk),
            Kind::File(_) => Ok(()),
        }
    }

    /// Refuses a target that is too small for `iso` bytes. An empty file is fine, since it grows.
    pub fn check_size(&self, iso: u64) -> Result<()> {
        let size = match &self.kind {
            Kind::File(0) => return Ok(()),
            Kind::File(size) => *size,
            Kind::Disk(device) => device.size,
        };
        if size < iso {
            let [has, needs] = [size, iso].map(in_units);
            bail!("{} has {has}, and the ISO needs {needs}: name a larger one", self.path.display());
        }
        Ok(())
    }

    /// Returns the name that the user has to type: the path without its folder.
    pub fn name(&self) -> &OsStr {
        self.path.file_name().unwrap_or(self.path.as_os_str())
    }

    /// Opens the target. A disk is opened exclusively, which the kernel refuses while anything else uses the disk.
    pub fn open(&self) -> Result<Medium, OpenError> {
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        if matches!(self.kind, Kind::Disk(_)) {
            options.custom_flags(OFlags::EXCL.bits().cast_signed());
        }
        options.open(&self.path).map(Medium).map_err(|error| match Errno::from_io_error(&error) {
            Some(Errno::ACCESS | Errno::PERM) => OpenError::NotPermitted,
            Some(Errno::BUSY) => OpenError::InUse,
            Some(Errno::ROFS) => OpenError::ReadOnly,
            _ => OpenError::Other(error),
        })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Kind::Disk(device) => write!(f, "{device}"),
            Kind::File(size) => write!(f, "{}: {}, a file", self.path.display(), in_units(*size)),
        }
    }
}

/// Why a target cannot be opened.
#[derive(Debug)]
pub enum OpenError {
    /// This user may not write to it.
    NotPermitted,
    /// A file system, a volume or a program uses it.
    InUse,
    /// It is read-only.
    ReadOnly,
    /// Another error.
    Other(io::Error),
}

/// A target that is open for writing. Flushing it writes everything out to the medium itself.
#[derive(Debug)]
pub struct Medium(File);

impl Medium {
    /// Goes back to the beginning and drops the kernel's cache, so that what follows is read from the medium.
    pub fn reread(&mut self) -> io::Result<()> {
        self.0.sync_all()?;
        fadvise(&self.0, 0, None, Advice::DontNeed)?;
        self.0.seek(SeekFrom::Start(0)).map(drop)
    }
}

impl Write for Medium {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.sync_data()
    }
}

impl Read for Medium {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.0.read(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_disks_and_files_are_targets() {
        let dir = tempfile::tempdir().unwrap();
        let refusal = |path: &Path| Target::look(path).unwrap_err().to_string();
        assert!(refusal(&dir.path().join("none")).contains("none: `lsblk` lists the disks"));
        assert!(refusal(dir.path()).contains(" is a folder: name the disk itself"));
        assert!(refusal(Path::new("/dev/null")).contains("/dev/null is neither a disk nor a file"));
    }

    #[test]
    fn a_file_has_to_be_large_enough_or_empty() {
        let dir = tempfile::tempdir().unwrap();
        let (path, link) = (dir.path().join("stick"), dir.path().join("link"));
        std::os::unix::fs::symlink(&path, &link).unwrap();
        for (size, fits) in [(0, true), (2047, false), (2048, true), (4096, true)] {
            fs::write(&path, vec![0; size]).unwrap();
            let target = Target::look(&link).unwrap();
            target.check(false).unwrap();
            assert_eq!(target.check_size(2048).is_ok(), fits, "{size}");
            assert_eq!(target.name(), "stick");
        }
        assert!(Target::look(&path).unwrap().to_string().ends_with("/stick: 4.0 KiB, a file"));
    }
}
