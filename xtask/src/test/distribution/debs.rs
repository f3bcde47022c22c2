//! The packages that are installed in a Debian, on a disk of the machine's.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use anyhow::{Context, Result};

use crate::archive::Archive;
use crate::build::Programs;
use crate::distribution;
use crate::package::{self, Version};
use crate::test::Tools;

/// The package that depends on the second kernel, which is smaller than the first.
const SECOND_KERNEL: &str = "linux-image-cloud-amd64";

/// What is installed in a guest, besides Vidar.
#[derive(Debug, Clone)]
pub struct Debs {
    /// The version of Vidar that is installed first.
    pub version: Version,
    /// The name of the second kernel's package.
    pub kernel: String,
    /// The second kernel's release.
    pub release: String,
}

impl Debs {
    /// Makes Vidar's packages, and fetches the kernel's. They are on a disk, whose path is returned as well.
    pub fn new(tools: &Tools, dir: &Path) -> Result<(Self, PathBuf)> {
        let programs = Programs { hypervisor: tools.hypervisor.clone(), vidarctl: tools.vidarctl.clone() };
        let version = Version::new(None)?;
        let newer = Version::new(Some(&format!("{version}+1")))?;
        let archive = Archive::default();
        // Another thread may be making the same packages.
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
        let guard = ONE_AT_A_TIME.lock();
        let kernel = archive.newest_kernel(&[SECOND_KERNEL.to_owned()])?;
        let release = kernel.strip_prefix("linux-image-").context("a kernel's package has another name")?;
        let files = [
            ("vidar.deb", package::make(version.clone(), &programs)?),
            ("newer.deb", package::make(newer, &programs)?),
            ("kernel.deb", archive.download(&kernel)?),
        ];
        for (name, file) in &files {
            fs::copy(file, dir.join(name)).with_context(|| format!("cannot copy {}", file.display()))?;
        }
        drop(guard);
        let disk = dir.join("packages");
        distribution::archive(&disk, dir, &files.map(|(name, _)| name))?;
        Ok((Self { version, release: release.to_owned(), kernel }, disk))
    }
}
