//! The guests of an ISO, which are described in `iso/guests.toml` or by the user.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::archive::Archive;
use crate::{cmdline, paths};

/// The default kernel command line of a guest.
pub const DEFAULT_CMDLINE: &str = "console=ttyS0,115200";

/// The name that stands for the initramfs that xtask packs.
pub const BUILT_IN: &str = "built-in";

/// A guest: a kernel, and what it is started with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guest {
    /// The name in menus, on the command line and in the ISO's paths.
    pub name: String,
    /// The title in the menu.
    pub title: String,
    /// The source of the kernel.
    pub kernel: Kernel,
    /// The sources of the initrd's parts, in their order. If the list is empty, the guest has no initrd.
    pub initrds: Vec<Initrd>,
    /// The kernel's command line.
    pub cmdline: String,
    /// The kernel modules that the built-in initramfs loads if the kernel has them.
    pub drivers: Vec<String>,
}

impl Guest {
    /// Returns the archive that the kernel and its modules come from.
    pub fn archive(&self) -> Archive {
        match &self.kernel {
            Kernel::File(_) => Archive::default(),
            Kernel::Packages { archive, .. } => archive.clone(),
        }
    }

    /// Returns the same guest with the kernel of Debian's `suite`. `None` if the guest's kernel is a file.
    pub fn of_suite(self, suite: &str) -> Option<Self> {
        let Kernel::Packages { names, .. } = self.kernel else { return None };
        let kernel = Kernel::Packages { names, archive: Archive::new(Some(suite)) };
        let (name, title) = (format!("{}-{suite}", self.name), format!("{} of Debian {suite}", self.title));
        Some(Self { name, title, kernel, ..self })
    }
}

/// The source of a kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kernel {
    /// A file.
    File(PathBuf),
    /// The newest kernel of the first of these packages that the archive offers.
    Packages {
        /// The names of the packages, the preferred one first.
        names: Vec<String>,
        /// The archive of the packages.
        archive: Archive,
    },
}

/// The source of an initrd, or of a part of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Initrd {
    /// The busybox shell that xtask packs.
    BuiltIn,
    /// A file.
    File(PathBuf),
}

impl Initrd {
    /// Reads the user's text. A relative path is relative to the folder `base`.
    pub fn parse(text: &str, base: &Path) -> Self {
        match text {
            BUILT_IN => Self::BuiltIn,
            file => Self::File(base.join(file)),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    #[serde(rename = "first-on-iso")]
    first_on_iso: Option<String>,
    guest: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    title: Option<String>,
    kernel: Option<String>,
    packages: Option<Vec<String>>,
    suite: Option<String>,
    #[serde(default)]
    initrd: OneOrMore,
    cmdline: Option<String>,
    #[serde(default)]
    drivers: Vec<String>,
}

/// A text, or a list of texts.
#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMore {
    One(String),
    More(Vec<String>),
}

impl Default for OneOrMore {
    fn default() -> Self {
        Self::More(Vec::new())
    }
}

impl OneOrMore {
    fn as_slice(&self) -> &[String] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::More(more) => more,
        }
    }
}

/// Returns the guests of every ISO. The first one is the one that emulators boot.
pub fn load() -> Result<Vec<Guest>> {
    Ok(read()?.0)
}

/// Returns the same guests. The first one is the one that boots by default from an ISO that a user makes.
pub fn load_for_iso() -> Result<Vec<Guest>> {
    let (mut guests, first) = read()?;
    guests.sort_by_key(|guest| Some(&guest.name) != first.as_ref());
    Ok(guests)
}

fn read() -> Result<(Vec<Guest>, Option<String>)> {
    let folder = paths::root().join("iso");
    let file = folder.join("guests.toml");
    let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    parse(&text, &folder).with_context(|| format!("in {}", file.display()))
}

/// Returns the guests, and the name of the one that comes first on an ISO.
fn parse(text: &str, folder: &Path) -> Result<(Vec<Guest>, Option<String>)> {
    let manifest: Manifest = toml::from_str(text)?;
    let guests =
        manifest.guest.into_iter().map(|entry| entry.into_guest(folder)).collect::<Result<Vec<_>>>()?;
    check(&guests)?;
    let first = manifest.first_on_iso;
    if let Some(name) = &first
        && guests.iter().all(|guest| guest.name != *name)
    {
        bail!("there is no guest \"{name}\", which `first-on-iso` names: name one of the guests there");
    }
    Ok((guests, first))
}

impl Entry {
    fn into_guest(self, folder: &Path) -> Result<Guest> {
        let kernel = match (self.kernel, self.packages) {
            (Some(_), None) if self.suite.is_some() => {
                bail!("the guest \"{}\" has a suite and a kernel: a suite goes only with packages", self.name)
            }
            (Some(file), None) => Kernel::File(folder.join(file)),
            (None, Some(names)) => Kernel::Packages { names, archive: Archive::new(self.suite.as_deref()) },
            _ => bail!(
                "the guest \"{}\" needs either a kernel or packages, and not both: give it one of the two",
                self.name
            ),
        };
        Ok(Guest {
            title: self.title.unwrap_or_else(|| self.name.clone()),
            initrds: self.initrd.as_slice().iter().map(|text| Initrd::parse(text, folder)).collect(),
            cmdline: self.cmdline.unwrap_or_else(|| DEFAULT_CMDLINE.to_owned()),
            name: self.name,
            kernel,
            drivers: self.drivers,
        })
    }
}

/// Refuses names that are used twice or that cannot be in a path and in a menu, and titles and command lines that
/// cannot be in a line of GRUB's configuration.
pub fn check(guests: &[Guest]) -> Result<()> {
    for (index, guest) in guests.iter().enumerate() {
        let name = &guest.name;
        let fits = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if name.is_empty() || name.len() > 40 || name.starts_with('.') || !name.chars().all(fits) {
            bail!("\"{name}\" cannot be a guest's name: use up to 40 letters, digits, '-', '_' and '.'");
        }
        if guests[..index].iter().any(|other| other.name == *name) {
            bail!("two guests are called \"{name}\": give one of them another name");
        }
        if guest.title.contains(char::is_control) {
            bail!("the title of the guest \"{name}\" has more than one line: make it one line");
        }
        cmdline::words(&guest.cmdline)
            .with_context(|| format!("the command line of the guest \"{name}\" cannot be used"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_one(text: &str) -> Result<Vec<Guest>> {
        Ok(parse(text, Path::new("/iso"))?.0)
    }

    #[test]
    fn the_projects_manifest_has_both_kernels() {
        let names = |guests: Vec<Guest>| guests.into_iter().map(|guest| guest.name).collect::<Vec<_>>();
        assert_eq!(names(load().unwrap()), ["cloud", "generic"]);
        assert_eq!(names(load_for_iso().unwrap()), ["generic", "cloud"]);
    }

    #[test]
    fn the_guest_for_sticks_has_drivers_for_keyboards_and_disks() {
        let first = &load_for_iso().unwrap()[0];
        for driver in
            ["xhci_pci", "ehci_pci", "usbhid", "hid_generic", "i2c_hid_acpi", "nvme", "ahci", "virtio_blk"]
        {
            assert!(first.drivers.iter().any(|other| other == driver), "{driver}");
        }
    }

    #[test]
    fn optional_fields_have_defaults() {
        let guest = &parse_one("[[guest]]\nname = 'a'\nkernel = 'bzImage'\n").unwrap()[0];
        assert_eq!(guest.title, "a");
        assert_eq!(guest.kernel, Kernel::File("/iso/bzImage".into()));
        assert_eq!(guest.initrds, []);
        assert_eq!(guest.cmdline, DEFAULT_CMDLINE);
    }

    #[test]
    fn a_guest_may_come_from_another_suite() {
        let guest = parse_one("[[guest]]\nname = 'a'\npackages = ['p']\nsuite = 'sid'\n").unwrap().remove(0);
        assert_eq!(guest.archive(), Archive::new(Some("sid")));
        let other = guest.of_suite("stable").unwrap();
        assert_eq!((other.name.as_str(), other.archive()), ("a-stable", Archive::new(Some("stable"))));
        let file = parse_one("[[guest]]\nname = 'a'\nkernel = 'k'\n").unwrap().remove(0);
        assert_eq!(file.of_suite("stable"), None);
    }

    #[test]
    fn an_initrd_may_have_parts() {
        let initrds = |initrd: &str| {
            let text = format!("[[guest]]\nname = 'a'\nkernel = 'k'\ninitrd = {initrd}\n");
            parse_one(&text).unwrap()[0].initrds.clone()
        };
        assert_eq!(initrds("'built-in'"), [Initrd::BuiltIn]);
        let parts = [Initrd::File("/iso/ucode.img".into()), Initrd::BuiltIn];
        assert_eq!(initrds("['ucode.img', 'built-in']"), parts);
    }

    #[test]
    fn bad_manifests_are_refused_with_a_reason() {
        for (text, sentence) in [
            ("[[guest]]\nname = 'a'\n", "needs either a kernel or packages"),
            ("[[guest]]\nname = 'a'\nkernel = 'k'\nsuite = 'sid'\n", "a suite goes only with packages"),
            ("[[guest]]\nname = 'a b'\nkernel = 'k'\n", "cannot be a guest's name"),
            ("[[guest]]\nname = ''\nkernel = 'k'\n", "cannot be a guest's name"),
            ("[[guest]]\nname = '../a'\nkernel = 'k'\n", "cannot be a guest's name"),
            (
                "[[guest]]\nname = 'a'\nkernel = 'k'\n[[guest]]\nname = 'a'\nkernel = 'k'\n",
                "two guests are called",
            ),
            ("[[guest]]\nname = 'a'\nkernel = 'k'\ncmdline = \"a\\nb\"\n", "it must be one line"),
            (
                "[[guest]]\nname = 'a'\nkernel = 'k'\ntitle = \"a\\nb\"\n",
                "title of the guest \"a\" has more than one line",
            ),
            (
                "[[guest]]\nname = 'a'\nkernel = 'k'\ncmdline = 'a=\"b'\n",
                "command line of the guest \"a\" cannot be used",
            ),
            (
                "first-on-iso = 'b'\n[[guest]]\nname = 'a'\nkernel = 'k'\n",
                "no guest \"b\", which `first-on-iso` names",
            ),
            ("[[guest]]\nname = 'a'\nkernal = 'k'\n", "unknown field `kernal`"),
        ] {
            let error = format!("{:#}", parse_one(text).unwrap_err());
            assert!(error.contains(sentence), "{error}");
        }
    }
}
