//! The disks with a Debian, by their partitions.

use std::path::PathBuf;

use crate::paths;

/// The partitions of a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// One file system for everything.
    Plain,
    /// A file system for /boot, and an LVM volume for the rest.
    Lvm,
}

impl Layout {
    /// All layouts.
    pub const ALL: [Self; 2] = [Self::Plain, Self::Lvm];

    /// Returns the name of the layout in the names of files and tests.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Lvm => "lvm",
        }
    }

    /// Returns the disk with this layout, once it is made. Guests may not change it.
    pub fn disk(self) -> PathBuf {
        home().join(format!("{}.disk", self.name()))
    }
}

/// Returns the folder of the disks.
pub fn home() -> PathBuf {
    paths::guests().join("debian")
}
