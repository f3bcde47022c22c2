//! What dpkg is told of the package: its name, dependencies and description, its configuration files, and the checksums
//! of its files.

use std::fmt::Write;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::changelog::MAINTAINER;
use super::contents::File;
use super::version::Version;

/// The fields that are the same in each version. `update-grub` is in grub2-common, on which the GRUBs for BIOS and for
/// UEFI depend; a GRUB that is not there yet is not this package's to install in a boot sector.
const FIELDS: &str = "\
Architecture: amd64
Depends: grub2-common (>= 2.02)
Section: kernel
Priority: optional
Description: thin hypervisor that Linux runs under with the whole machine
 Vidar is a thin type-1 hypervisor for x86-64 with Intel VT-x or AMD-V. GRUB
 loads it together with the kernel and the initrd of this system, and Linux
 then runs under it with every CPU, every device and every interrupt at native
 speed. Vidar keeps 2 MiB of memory for itself.
 .
 This package adds an entry \"under Vidar\" to GRUB's menu for each kernel that
 is installed. The entries without Vidar stay as they are.
";

/// Returns the file `control`.
pub fn control(version: &Version, files: &[File]) -> String {
    let size = installed_size(files);
    format!("Package: vidar\nVersion: {version}\nMaintainer: {MAINTAINER}\nInstalled-Size: {size}\n{FIELDS}")
}

/// Returns the space that the files take, in KiB, as dpkg-gencontrol estimates it: each file in whole KiB, and one for
/// each folder.
fn installed_size(files: &[File]) -> usize {
    let mut folders: Vec<_> =
        files.iter().flat_map(|file| Path::new(file.path).ancestors().skip(1)).collect();
    folders.sort_unstable();
    folders.dedup();
    folders.len() + files.iter().map(|file| file.bytes.len().div_ceil(1024)).sum::<usize>()
}

/// Returns the file `conffiles`, which names the files whose changes by the user are kept.
pub fn conffiles(files: &[File]) -> String {
    let conffiles = files.iter().filter(|file| file.path.starts_with("etc/"));
    conffiles.fold(String::new(), |mut text, file| {
        writeln!(text, "/{}", file.path).expect("writing to a String cannot fail");
        text
    })
}

/// Returns the file `md5sums`, with the checksums of the files in the folder that are no configuration files.
pub fn md5sums(folder: &Path, files: &[File]) -> Result<String> {
    let mut md5sum = Command::new("md5sum");
    let files = files.iter().map(|file| file.path).filter(|path| !path.starts_with("etc/"));
    let output = md5sum.arg("--").args(files).current_dir(folder).output().context("cannot run md5sum")?;
    ensure!(output.status.success(), "md5sum failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(String::from_utf8(output.stdout)?)
}
