//! The files of guests: their kernels and busybox, which come from the distribution's packages and are kept under
//! `target`.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use crate::archive::Archive;
use crate::manifest::{Guest, Initrd, Kernel};
use crate::{packages, paths, progress};

/// How fresh a file from a package has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// Any version that has been fetched is good enough.
    Any,
    /// The newest version that apt offers is required.
    Newest,
}

/// Refuses files of `guest` that cannot be read or that are empty.
pub fn check(guest: &Guest) -> Result<()> {
    let kernel = match &guest.kernel {
        Kernel::File(file) => Some(("kernel", file)),
        Kernel::Packages { .. } => None,
    };
    let initrds = guest.initrds.iter().filter_map(|initrd| match initrd {
        Initrd::File(file) => Some(("initrd", file)),
        Initrd::BuiltIn => None,
    });
    for (what, file) in kernel.into_iter().chain(initrds) {
        let cannot = format!("{} cannot be the {what} of the guest \"{}\"", file.display(), guest.name);
        let opened = File::open(file).with_context(|| {
            format!("{cannot}, since it cannot be read: give the path of a file that you can read")
        })?;
        let metadata = opened.metadata()?;
        ensure!(metadata.is_file(), "{cannot}, since it is not a file: give the path of a file");
        ensure!(metadata.len() > 0, "{cannot}, since it is empty: copy the file again");
    }
    Ok(())
}

/// The kernel of `guest`, which is fetched if necessary.
pub fn kernel(guest: &Guest, freshness: Freshness) -> Result<PathBuf> {
    match &guest.kernel {
        Kernel::File(file) => Ok(file.clone()),
        Kernel::Packages { names, archive } => {
            let first = names.first().with_context(|| {
                format!("The guest \"{}\" has an empty list of packages: name one.", guest.name)
            })?;
            let file = archive.folder(&paths::guests()).join(first).join("vmlinuz");
            let take = |package: &str, to: &Path| archive.extract_kernel(package, to);
            cached(&file, freshness, archive, || archive.newest_kernel(names), take)
        }
    }
}

/// A static busybox, which is fetched if necessary.
pub fn busybox(freshness: Freshness) -> Result<PathBuf> {
    let file = paths::guests().join("busybox-static/busybox");
    let archive = Archive::default();
    // The program is in /bin or in /usr/bin.
    let take = |package: &str, to: &Path| archive.extract(package, "./*bin/busybox", to);
    cached(&file, freshness, &archive, || Ok("busybox-static".to_owned()), take)
}

/// Returns `file`, which comes from the package of `archive` that `package` names. If the file is missing or has to be
/// newer, `take` extracts it from that package. A note beside it has the version.
fn cached(
    file: &Path,
    freshness: Freshness,
    archive: &Archive,
    package: impl Fn() -> Result<String>,
    take: impl Fn(&str, &Path) -> Result<()>,
) -> Result<PathBuf> {
    if file.is_file() && freshness == Freshness::Any {
        return Ok(file.to_path_buf());
    }
    let folder = paths::ensure(file.parent().expect("the file is in a folder").to_path_buf())?;
    if !packages::have_apt() {
        let file = file.display();
        bail!("{file} is missing, and this system has no apt to fetch it: put such a file there");
    }
    let note = folder.join("source");
    let offer = || -> Result<_> {
        let package = package()?;
        Ok(format!("{package} {}", archive.candidate(&package)?))
    };
    let mut source = offer()?;
    if file.is_file() && fs::read_to_string(&note).is_ok_and(|old| old.trim_end() == source) {
        return Ok(file.to_path_buf());
    }
    // Another xtask may be fetching or reading the file, so it is replaced as a whole.
    let new = tempfile::Builder::new().permissions(fs::Permissions::from_mode(0o644)).tempfile_in(&folder)?;
    let fetch = |source: &str| {
        let package = source.replacen(' ', "=", 1);
        progress::step(&format!("fetching {source}"), || take(&package, new.path()))
    };
    if fetch(&source).is_err() {
        // Package lists that are some days old may name files that have been replaced since.
        archive.update()?;
        source = offer()?;
        fetch(&source)?;
    }
    new.persist(file).with_context(|| format!("cannot write {}", file.display()))?;
    fs::write(&note, source + "\n")?;
    Ok(file.to_path_buf())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_cannot_be_read_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("kernel");
        let empty = dir.path().join("empty");
        fs::write(&file, "x").unwrap();
        fs::write(&empty, "").unwrap();
        let guest = |kernel: &Path, initrd: &Path| Guest {
            name: "a".to_owned(),
            title: "a".to_owned(),
            kernel: Kernel::File(kernel.to_owned()),
            initrds: vec![Initrd::File(initrd.to_owned())],
            cmdline: String::new(),
            drivers: Vec::new(),
        };
        check(&guest(&file, &file)).unwrap();
        let error = check(&guest(&dir.path().join("none"), &file)).unwrap_err().to_string();
        let sentence = "/none cannot be the kernel of the guest \"a\", since it cannot be read: give the path of a file that you can read";
        assert!(error.ends_with(sentence), "{error}");
        let error = check(&guest(&file, dir.path())).unwrap_err().to_string();
        let sentence =
            " cannot be the initrd of the guest \"a\", since it is not a file: give the path of a file";
        assert!(error.ends_with(sentence), "{error}");
        for (kernel, initrd, what) in [(&empty, &file, "kernel"), (&file, &empty, "initrd")] {
            let error = check(&guest(kernel, initrd)).unwrap_err().to_string();
            let sentence = format!(
                "/empty cannot be the {what} of the guest \"a\", since it is empty: copy the file again"
            );
            assert!(error.ends_with(&sentence), "{error}");
        }
    }
}
