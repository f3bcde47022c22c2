//! `cargo xtask usb`: writes the ISO to a USB stick, and refuses devices that the user is unlikely to mean.

mod copy;
mod device;
mod target;
mod units;

use std::fs::File;
use std::io::{BufRead, Read, Seek, SeekFrom, stdin};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use rustix::fs::{Access, access};

use self::target::{OpenError, Target};
use self::units::in_units;
use crate::{paths, progress};

/// The bytes that every ISO has at [`MAGIC_AT`].
const MAGIC: &[u8; 5] = b"CD001";
const MAGIC_AT: u64 = 0x8001;

/// What the user asks for.
#[derive(Debug)]
pub struct Order {
    /// The path of the stick, as the user gives it.
    pub target: PathBuf,
    /// An existing ISO to write; without one, the ISO is made first.
    pub iso: Option<PathBuf>,
    /// True if a disk that is neither at USB nor removable is accepted.
    pub any_disk: bool,
    /// True if the user has agreed beforehand, by `--yes`.
    pub yes: bool,
}

impl Order {
    /// Refuses what can be refused before an ISO is made.
    pub fn check(&self) -> Result<()> {
        let target = Target::look(&self.target)?;
        target.check(self.any_disk)?;
        // Only the kernel knows for sure, when the device is opened. This saves the user from making an ISO for
        // nothing.
        if access(&target.path, Access::WRITE_OK).is_err_and(|error| error == rustix::io::Errno::ACCESS) {
            return Err(self.refusal(&target, OpenError::NotPermitted));
        }
        match &self.iso {
            Some(iso) => target.check_size(open_iso(iso)?.1),
            None => Ok(()),
        }
    }

    /// Writes `iso` after the user has agreed, and reads it back to verify it.
    pub fn write(&self, iso: &Path) -> Result<()> {
        let (mut image, size) = open_iso(iso)?;
        let target = Target::look(&self.target)?;
        target.check(self.any_disk)?;
        target.check_size(size)?;
        ensure!(
            !iso.canonicalize().is_ok_and(|iso| iso == target.path),
            "the ISO cannot be written to itself"
        );
        // From here on nothing else can mount it, so that what the user agrees to stays true.
        let mut medium = target.open().map_err(|error| self.refusal(&target, error))?;
        eprintln!("{target}");
        if !self.yes {
            eprintln!("The ISO ({}) will replace everything that is there.", in_units(size));
            agree(&target.name().to_string_lossy(), &mut stdin().lock())?;
        }
        let path = target.path.display();
        progress::bytes(&format!("writing {path}"), size, |report| {
            copy::write(&mut image, &mut medium, report)
        })
        .with_context(|| format!("{path} does not have the ISO"))?;
        progress::bytes(&format!("reading {path} back"), size, |report| {
            image.seek(SeekFrom::Start(0))?;
            medium.reread().context("cannot read it again")?;
            copy::verify(&mut image, &mut medium, report)
        })
        .with_context(|| format!("{path} does not have the ISO"))?;
        println!("{path}: {} written and read back; it can be taken out", in_units(size));
        Ok(())
    }

    /// Says what is wrong, and what to do.
    fn refusal(&self, target: &Target, error: OpenError) -> anyhow::Error {
        let path = target.path.display();
        match error {
            OpenError::NotPermitted => anyhow::anyhow!("{path} is not yours to write to: {}", self.as_root()),
            OpenError::InUse => anyhow::anyhow!(
                "{path} is in use by a file system, a volume or a program: `lsblk {path}` may show it; end that first"
            ),
            OpenError::ReadOnly => anyhow::anyhow!("{path} is read-only: name another one"),
            OpenError::Other(error) => anyhow::anyhow!(error).context(format!("cannot open {path}")),
        }
    }

    /// Returns the commands for a user who is not root. Only xtask itself runs as root, since cargo is installed for
    /// the user.
    fn as_root(&self) -> String {
        let xtask = std::env::current_exe().unwrap_or_else(|_| "target/debug/xtask".into());
        let (before, iso) = match &self.iso {
            Some(iso) => ("", iso.clone()),
            None => ("`cargo xtask iso` and then ", paths::default_iso()),
        };
        let any_disk = if self.any_disk { " --any-disk" } else { "" };
        let [xtask, iso, target] = [&xtask, &iso, &self.target].map(|path| path.display());
        format!("do {before}`sudo {xtask} usb --iso {iso}{any_disk} {target}`")
    }
}

/// Opens an ISO. Returns it with its size.
fn open_iso(iso: &Path) -> Result<(File, u64)> {
    let shown = iso.display();
    let mut file = File::open(iso).with_context(|| format!("cannot open the ISO {shown}"))?;
    let mut magic = [0; MAGIC.len()];
    file.seek(SeekFrom::Start(MAGIC_AT))?;
    let is_iso = file.read_exact(&mut magic).is_ok() && magic == *MAGIC;
    ensure!(is_iso, "{shown} is not an ISO: `cargo xtask iso` makes one");
    let size = file.seek(SeekFrom::End(0))?;
    file.seek(SeekFrom::Start(0))?;
    Ok((file, size))
}

/// Asks the user to agree by typing `name`.
fn agree(name: &str, input: &mut impl BufRead) -> Result<()> {
    eprint!("Type {name} to go on: ");
    let mut answer = String::new();
    if input.read_line(&mut answer).context("cannot read the answer")? == 0 {
        eprintln!();
        bail!("nothing was written, since there was no answer: add --yes to write without asking");
    }
    ensure!(answer.trim() == name, "nothing was written, since the answer was not \"{name}\"");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_name_is_an_answer() {
        let answer = |text: &str| agree("sdb", &mut text.as_bytes()).map_err(|error| error.to_string());
        assert_eq!(answer("sdb\n"), Ok(()));
        assert_eq!(answer(" sdb"), Ok(()));
        for no in ["\n", "y\n", "sdc\n", "sdb1\n"] {
            assert_eq!(answer(no).unwrap_err(), "nothing was written, since the answer was not \"sdb\"");
        }
        assert_eq!(
            answer("").unwrap_err(),
            "nothing was written, since there was no answer: add --yes to write without asking"
        );
    }

    #[test]
    fn a_file_that_is_not_an_iso_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        std::fs::write(&path, vec![0; 1 << 16]).unwrap();
        assert!(
            open_iso(&path)
                .unwrap_err()
                .to_string()
                .ends_with("x is not an ISO: `cargo xtask iso` makes one")
        );
        let mut content = vec![0; 1 << 16];
        content[0x8001..0x8006].copy_from_slice(MAGIC);
        std::fs::write(&path, content).unwrap();
        assert_eq!(open_iso(&path).unwrap().1, 1 << 16);
    }

    #[test]
    fn the_advice_for_root_is_a_complete_command() {
        let order = |iso: Option<&str>, any_disk| Order {
            target: "/dev/sdb".into(),
            iso: iso.map(Into::into),
            any_disk,
            yes: false,
        };
        let way = order(None, false).as_root();
        assert!(way.starts_with("do `cargo xtask iso` and then `sudo /"), "{way}");
        assert!(way.ends_with("/vidar.iso /dev/sdb`"), "{way}");
        let way = order(Some("my.iso"), true).as_root();
        assert!(
            way.starts_with("do `sudo /") && way.ends_with(" usb --iso my.iso --any-disk /dev/sdb`"),
            "{way}"
        );
    }
}
