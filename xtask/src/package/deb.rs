//! Puts the package together with dpkg-deb. The bytes depend only on the files, the version and the date.

use std::fs::{self, File as Handle, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};

use super::contents::{Source, files};
use super::{control, scripts};
use crate::packages;

/// Makes the package `output`.
pub fn package(source: &Source, output: &Path) -> Result<()> {
    let files = files(source)?;
    let tree = tempfile::tempdir()?;
    for file in &files {
        write(tree.path(), file.path, file.mode, &file.bytes)?;
    }
    let mut about = vec![
        ("control", 0o644, control::control(&source.version, &files)),
        ("md5sums", 0o644, control::md5sums(tree.path(), &files)?),
    ];
    let conffiles = control::conffiles(&files);
    about.extend((!conffiles.is_empty()).then_some(("conffiles", 0o644, conffiles)));
    about.extend(scripts::all(&source.version).map(|(name, text)| (name, 0o755, text)));
    for (name, mode, text) in about {
        write(tree.path(), &format!("DEBIAN/{name}"), mode, text.as_bytes())?;
    }
    set_folders(tree.path(), source.date)?;
    dpkg_deb(tree.path(), source.date, output)
}

fn write(tree: &Path, path: &str, mode: u32, bytes: &[u8]) -> Result<()> {
    let path = tree.join(path);
    fs::create_dir_all(path.parent().context("a file is in a folder")?)?;
    fs::write(&path, bytes)?;
    Ok(fs::set_permissions(&path, Permissions::from_mode(mode))?)
}

/// Gives all folders the usual permissions, and everything the date.
fn set_folders(folder: &Path, date: u64) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            set_folders(&path, date)?;
        } else {
            set_date(&path, date)?;
        }
    }
    fs::set_permissions(folder, Permissions::from_mode(0o755))?;
    set_date(folder, date)
}

fn set_date(path: &Path, date: u64) -> Result<()> {
    Ok(Handle::open(path)?.set_modified(UNIX_EPOCH + Duration::from_secs(date))?)
}

/// Runs dpkg-deb, with a compression that each Debian and Ubuntu can read. With several threads the result depends on
/// their number.
fn dpkg_deb(tree: &Path, date: u64, output: &Path) -> Result<()> {
    ensure!(
        packages::has_program("dpkg-deb"),
        "there is no dpkg-deb, which makes the package: install it (`dpkg` in most distributions)"
    );
    let mut dpkg_deb = Command::new("dpkg-deb");
    dpkg_deb.env("SOURCE_DATE_EPOCH", date.to_string()).env("DPKG_DEB_THREADS_MAX", "1");
    dpkg_deb.args(["--build", "--root-owner-group", "--uniform-compression", "-Zxz"]).arg(tree).arg(output);
    let made = dpkg_deb.output().context("cannot run dpkg-deb")?;
    ensure!(made.status.success(), "dpkg-deb failed: {}", String::from_utf8_lossy(&made.stderr).trim());
    Ok(())
}
