//! Tests the package's scripts by dpkg itself, which installs packages into a folder that stands for a system's root.
//! dpkg then runs the scripts with `DPKG_ROOT`, and these run `update-grub` by a `chroot` that this test provides: it
//! lists the images.

use std::collections::BTreeMap;
use std::env;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::contents::Source;
use super::deb;
use super::version::Version;

/// Stands for `chroot ROOT update-grub`. The menu is the list of Vidar's images. It fails if there is a file `broken`.
const CHROOT: &str = "#!/bin/sh\nset -e\n[ \"$2\" = update-grub ]\ncd \"$1/boot\"\nif [ -e ../broken ]; then exit 1; fi\n\
    ls | grep '^vidar.*f$' | grep -v mine >grub/grub.cfg || :\n";
const UPDATE_GRUB: &str = "#!/bin/sh\necho 'update-grub was run outside of the root' >&2\nexit 1\n";
/// Stands for a `cp` that finds no room on the disk.
const FULL: &str = "#!/bin/sh\nfor to in \"$@\"; do :; done\necho half >\"$to\"\nexit 1\n";

/// The files of a system, by their paths.
type Files = BTreeMap<PathBuf, Vec<u8>>;

/// A system that packages are installed in.
struct System(TempDir);

impl System {
    /// Returns a system with a menu of GRUB's that has no entry for Vidar.
    fn new() -> Self {
        let system = Self::without_grub();
        system.write("root/boot/grub/grub.cfg", "");
        system
    }

    /// Returns a system that has no menu.
    fn without_grub() -> Self {
        let system = Self(tempfile::tempdir().unwrap());
        for folder in ["root/var/lib/dpkg/info", "root/var/lib/dpkg/updates", "root/boot/grub"] {
            fs::create_dir_all(system.path(folder)).unwrap();
        }
        system.write("root/var/lib/dpkg/status", "");
        // A file of the user's with a name like those of the images.
        system.write("root/boot/vidar-mine.elf", "mine");
        system.program("chroot", CHROOT);
        system.program("update-grub", UPDATE_GRUB);
        system
    }

    fn path(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// Adds a program before those of this machine.
    fn program(&self, name: &str, text: &str) {
        let path = format!("bin/{name}");
        self.write(&path, text);
        fs::set_permissions(self.path(&path), Permissions::from_mode(0o755)).unwrap();
    }

    /// Runs dpkg. Returns true if it succeeded, and what it printed.
    fn dpkg(&self, arguments: &[&str]) -> (bool, String) {
        let mut dpkg = Command::new("dpkg");
        let forced = [
            "not-root",
            "script-chrootless",
            "depends",
            "bad-path",
            "unsafe-io",
            "confdef",
            "confold",
            "downgrade",
        ];
        dpkg.arg(format!("--root={}", self.path("root").display()));
        dpkg.args(forced.map(|what| format!("--force-{what}")));
        // Settings of this machine may leave folders of packages out.
        dpkg.args(["--log=/dev/null", "--path-include=/*"]).args(arguments);
        let path = env::join_paths(
            [self.path("bin")].into_iter().chain(env::split_paths(&env::var_os("PATH").unwrap())),
        );
        let output = dpkg.env("PATH", path.unwrap()).output().expect("dpkg runs");
        let said = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&said).into_owned())
    }

    /// Installs a version whose image has the version as its content.
    fn install(&self, version: &str) -> (bool, String) {
        self.dpkg(&["--install", self.package(version).to_str().unwrap()])
    }

    /// Makes the package of a version.
    fn package(&self, version: &str) -> PathBuf {
        let package = self.path("vidar.deb");
        let source = Source {
            version: Version::new(Some(version)).unwrap(),
            date: 1_700_000_000,
            copyright: "copyright".into(),
            image: version.into(),
            vidarctl: b"vidarctl".into(),
        };
        deb::package(&source, &package).unwrap();
        package
    }

    /// Does the same, and expects that it succeeds.
    fn installed(self, version: &str) -> Self {
        let (succeeded, said) = self.install(version);
        assert!(succeeded, "{said}");
        self
    }

    /// Returns the package's state, as dpkg names it.
    fn state(&self) -> String {
        let mut query = Command::new("dpkg-query");
        query.arg(format!("--admindir={}", self.path("root/var/lib/dpkg").display()));
        query.args(["--show", "--showformat=${db:Status-Status} ${Version}", "vidar"]);
        String::from_utf8(query.output().unwrap().stdout).unwrap()
    }

    /// Returns all files but those of dpkg.
    fn files(&self) -> Files {
        let mut files = Files::new();
        collect(&self.path("root"), Path::new(""), &mut files);
        files
    }

    /// Returns the package's images as `NAME=CONTENT`, and after a bar those of the menu.
    fn images(&self) -> String {
        let files = self.files();
        let images = files.iter().filter_map(|(path, bytes)| {
            let name = path.strip_prefix("boot").ok()?.to_str()?;
            let image = name.starts_with("vidar") && name != "vidar-mine.elf";
            image.then(|| format!("{name}={} ", String::from_utf8_lossy(bytes)))
        });
        let menu = files.get(Path::new("boot/grub/grub.cfg")).map(|text| String::from_utf8_lossy(text));
        let line = images.collect::<String>() + "| " + &menu.unwrap_or_default().replace('\n', " ");
        line.trim().to_owned()
    }
}

fn collect(root: &Path, folder: &Path, files: &mut Files) {
    for entry in fs::read_dir(root.join(folder)).unwrap() {
        let path = folder.join(entry.unwrap().file_name());
        if path == Path::new("var") {
            continue;
        }
        if root.join(&path).is_dir() {
            // An empty folder counts as a file without content.
            files.insert(path.clone(), Vec::new());
            collect(root, &path, files);
        } else {
            files.insert(path.clone(), fs::read(root.join(&path)).unwrap());
        }
    }
}

/// The images and the menu once only version 1 is installed.
const ONE: &str = "vidar.elf=1 | vidar.elf";

#[test]
fn an_installed_image_is_in_the_menu() {
    let system = System::new().installed("1");
    assert_eq!(system.images(), ONE);
    assert_eq!(system.state(), "installed 1");
}

#[test]
fn an_upgrade_keeps_the_previous_image_and_no_older_one() {
    let system = System::new().installed("1").installed("2~rc1");
    assert_eq!(system.images(), "vidar-1.elf=1 vidar.elf=2~rc1 | vidar-1.elf vidar.elf");
    let system = system.installed("2");
    assert_eq!(system.images(), "vidar-2~rc1.elf=2~rc1 vidar.elf=2 | vidar-2~rc1.elf vidar.elf");
}

#[test]
fn the_same_version_again_keeps_the_previous_image() {
    let system = System::new().installed("1").installed("2").installed("2");
    assert_eq!(system.images(), "vidar-1.elf=1 vidar.elf=2 | vidar-1.elf vidar.elf");
}

#[test]
fn a_downgrade_keeps_the_newer_image() {
    let system = System::new().installed("1").installed("2").installed("1");
    assert_eq!(system.images(), "vidar-2.elf=2 vidar.elf=1 | vidar-2.elf vidar.elf");
}

#[test]
fn purge_leaves_what_was_there_before() {
    let system = System::new();
    let before = system.files();
    let system = system.installed("1").installed("2");
    let (succeeded, said) = system.dpkg(&["--purge", "vidar"]);
    assert!(succeeded, "{said}");
    assert_eq!(system.files(), before);
    assert_eq!(system.images(), "|");
}

#[test]
fn remove_leaves_the_configuration_alone() {
    let system = System::new();
    let before = system.files();
    let system = system.installed("1").installed("2");
    let (succeeded, said) = system.dpkg(&["--remove", "vidar"]);
    assert!(succeeded, "{said}");
    let mut left = system.files();
    left.retain(|path, _| !before.contains_key(path) && !system.path("root").join(path).is_dir());
    let left: Vec<_> = left.keys().collect();
    assert_eq!(left, [Path::new("etc/default/grub.d/vidar.cfg"), Path::new("etc/grub.d/45_vidar")]);
    assert_eq!(system.images(), "|");
}

#[test]
fn a_version_that_cannot_be_unpacked_leaves_everything_as_it_was() {
    let system = System::new().installed("1").installed("2");
    let before = system.files();
    // The package's last bytes are missing, as if the disk had become full.
    let package = system.package("3");
    let bytes = fs::read(&package).unwrap();
    fs::write(&package, &bytes[..bytes.len() - 64]).unwrap();
    let (succeeded, said) = system.dpkg(&["--install", package.to_str().unwrap()]);
    assert!(!succeeded && said.contains("Unpacking vidar (3) over (2)"), "{said}");
    assert_eq!(system.files(), before, "{said}");
    assert_eq!(system.state(), "installed 2");
    let system = system.installed("3");
    assert_eq!(system.images(), "vidar-2.elf=2 vidar.elf=3 | vidar-2.elf vidar.elf");
}

#[test]
fn an_image_that_cannot_be_kept_stops_the_upgrade() {
    let system = System::new().installed("1");
    let before = system.files();
    system.program("cp", FULL);
    let (succeeded, said) = system.install("2");
    assert!(!succeeded && said.contains("make room in /boot"), "{said}");
    assert_eq!(system.files(), before);
    assert_eq!(system.state(), "installed 1");
}

#[test]
fn a_menu_that_cannot_be_made_is_reported_and_made_later() {
    let system = System::new().installed("1");
    system.write("root/broken", "");
    let (succeeded, said) = system.install("2");
    assert!(!succeeded && said.contains("then run dpkg --configure vidar"), "{said}");
    assert_eq!(system.state(), "half-configured 2");
    assert_eq!(system.images(), "vidar-1.elf=1 vidar.elf=2 | vidar.elf");
    fs::remove_file(system.path("root/broken")).unwrap();
    let (succeeded, said) = system.dpkg(&["--configure", "vidar"]);
    assert!(succeeded, "{said}");
    assert_eq!(system.state(), "installed 2");
    assert_eq!(system.images(), "vidar-1.elf=1 vidar.elf=2 | vidar-1.elf vidar.elf");
}

#[test]
fn the_way_back_from_a_version_that_was_not_configured_is_open() {
    let system = System::new().installed("1");
    system.write("root/broken", "");
    assert!(!system.install("2").0);
    fs::remove_file(system.path("root/broken")).unwrap();
    let system = system.installed("1");
    assert_eq!(system.images(), "vidar-2.elf=2 vidar.elf=1 | vidar-2.elf vidar.elf");
    let system = system.installed("3");
    assert_eq!(system.images(), "vidar-1.elf=1 vidar.elf=3 | vidar-1.elf vidar.elf");
}

#[test]
fn a_menu_that_cannot_be_made_does_not_keep_the_package() {
    let system = System::new().installed("1");
    system.write("root/broken", "");
    let (succeeded, said) = system.dpkg(&["--purge", "vidar"]);
    assert!(succeeded && said.contains("then run update-grub"), "{said}");
    assert_eq!(system.images(), "| vidar.elf");
}

#[test]
fn a_system_without_a_menu_is_told_so() {
    let system = System::without_grub();
    let (succeeded, said) = system.install("1");
    assert!(succeeded && said.contains("run update-grub when GRUB is installed"), "{said}");
    assert_eq!(system.images(), "vidar.elf=1 |");
    let (succeeded, said) = system.dpkg(&["--purge", "vidar"]);
    assert!(succeeded && !said.contains("update-grub"), "{said}");
}
