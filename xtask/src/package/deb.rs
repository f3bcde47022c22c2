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

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::package::Version;

    /// The files and folders, as dpkg-deb lists them: permissions, owner and path.
    const CONTENTS: &str = "\
drwxr-xr-x root/root ./
drwxr-xr-x root/root ./boot/
-rw-r--r-- root/root ./boot/vidar.elf
drwxr-xr-x root/root ./etc/
drwxr-xr-x root/root ./etc/default/
drwxr-xr-x root/root ./etc/default/grub.d/
-rw-r--r-- root/root ./etc/default/grub.d/vidar.cfg
drwxr-xr-x root/root ./etc/grub.d/
-rwxr-xr-x root/root ./etc/grub.d/45_vidar
drwxr-xr-x root/root ./usr/
drwxr-xr-x root/root ./usr/bin/
-rwxr-xr-x root/root ./usr/bin/vidarctl
drwxr-xr-x root/root ./usr/share/
drwxr-xr-x root/root ./usr/share/bash-completion/
drwxr-xr-x root/root ./usr/share/bash-completion/completions/
-rw-r--r-- root/root ./usr/share/bash-completion/completions/vidarctl
drwxr-xr-x root/root ./usr/share/doc/
drwxr-xr-x root/root ./usr/share/doc/vidar/
-rw-r--r-- root/root ./usr/share/doc/vidar/changelog.gz
-rw-r--r-- root/root ./usr/share/doc/vidar/copyright
drwxr-xr-x root/root ./usr/share/lintian/
drwxr-xr-x root/root ./usr/share/lintian/overrides/
-rw-r--r-- root/root ./usr/share/lintian/overrides/vidar
drwxr-xr-x root/root ./usr/share/man/
drwxr-xr-x root/root ./usr/share/man/man1/
-rw-r--r-- root/root ./usr/share/man/man1/vidarctl.1.gz
drwxr-xr-x root/root ./usr/share/man/man7/
-rw-r--r-- root/root ./usr/share/man/man7/vidar.7.gz
";

    fn made(folder: &Path, name: &str) -> PathBuf {
        let output = folder.join(name);
        let source = Source {
            version: Version::new(Some("1.2")).unwrap(),
            date: 1_700_000_000,
            copyright: "copyright".into(),
            image: b"image".into(),
            vidarctl: b"vidarctl".into(),
        };
        package(&source, &output).unwrap();
        output
    }

    fn shown(arguments: &[&str], package: &Path) -> String {
        let output = Command::new("dpkg-deb").args(arguments).arg(package).env("TZ", "UTC").output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    #[test]
    fn files_have_their_permissions_and_the_date_and_belong_to_root() {
        let folder = tempfile::tempdir().unwrap();
        let contents = shown(&["--contents"], &made(folder.path(), "a.deb"));
        let mut listed = String::new();
        for line in contents.lines() {
            let words: Vec<_> = line.split_whitespace().collect();
            assert_eq!(words[3..5], ["2023-11-14", "22:13"], "{line}");
            listed += &format!("{} {} {}\n", words[0], words[1], words[5]);
        }
        assert_eq!(listed, CONTENTS);
    }

    #[test]
    fn dpkg_knows_the_version_and_the_configuration() {
        let folder = tempfile::tempdir().unwrap();
        let package = made(folder.path(), "a.deb");
        let fields = shown(&["--show", "--showformat=${Package} ${Version} ${Architecture}"], &package);
        assert_eq!(fields, "vidar 1.2 amd64");
        let unpacked = folder.path().join("control");
        let mut unpack = Command::new("dpkg-deb");
        assert!(unpack.arg("--control").arg(&package).arg(&unpacked).status().unwrap().success());
        let read = |name| fs::read_to_string(unpacked.join(name)).unwrap();
        assert_eq!(read("conffiles"), "/etc/default/grub.d/vidar.cfg\n/etc/grub.d/45_vidar\n");
        assert!(read("md5sums").contains("  boot/vidar.elf\n") && !read("md5sums").contains("etc/"));
        for script in ["preinst", "postinst", "postrm"] {
            for place in ["@VERSION@", "@UPDATE_MENU@"] {
                assert!(!read(script).contains(place), "{script} still has {place}");
            }
            assert!(Command::new("sh").arg("-n").arg(unpacked.join(script)).status().unwrap().success());
        }
    }

    #[test]
    fn two_packages_of_one_source_have_the_same_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let [one, two] = ["a.deb", "b.deb"].map(|name| fs::read(made(folder.path(), name)).unwrap());
        assert!(one == two);
    }
}
