//! The emulators and the GRUB of another Debian. Its packages are unpacked into a tree under `target/emulators`, in
//! which xtask runs itself again.
//!
//! The tests thus find everything where a user of that Debian has it. This machine's devices, its network, and the
//! project with everything that was built are mounted into the tree, in a mount namespace that lasts as long as that
//! process.

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use xshell::{Shell, cmd};

use crate::{packages, paths, progress};

/// Debian's own archive, for systems other than Debian.
const ARCHIVE: &str = "http://deb.debian.org/debian/";
/// The keys that Debian's archive is signed with, and the package that has them.
const KEYRING: (&str, &str) = ("/usr/share/keyrings/debian-archive-keyring.gpg", "debian-archive-keyring");
/// A number in the note beside a tree, which is raised when trees have to be made again.
const RECIPE: u32 = 1;

/// A script that mounts what the tree needs of this machine, and runs a program in the tree. Its arguments are the
/// tree, folders to mount, "--", the program and the program's arguments. It ends when this process does.
const ENTER: &str = r#"set -e
tree=$1
shift
for folder in dev proc sys tmp; do mount --rbind "/$folder" "$tree/$folder"; done
for file in /etc/resolv.conf /etc/hosts; do
    if [ -e "$file" ]; then mount --bind "$file" "$tree$file"; fi
done
while [ "$1" != -- ]; do
    mkdir -p "$tree$1"
    mount --bind "$1" "$tree$1"
    shift
done
shift
exec chroot "$tree" setpriv --pdeathsig KILL "$@"
"#;

/// A script that unpacks the archive $1 into the new folder $2, without devices. It also makes the files on which
/// [`ENTER`] mounts this machine's.
const UNPACK: &str = r#"set -e
mkdir "$2"
tar --extract --numeric-owner --exclude='./dev/*' --file="$1" --directory="$2"
for file in resolv.conf hosts; do [ -e "$2/etc/$file" ] || : >"$2/etc/$file"; done
"#;

/// Returns the tree of a suite, such as `trixie`, which is made if necessary.
pub fn get(suite: &str) -> Result<PathBuf> {
    check(suite)?;
    let home = paths::ensure(paths::emulators(suite))?;
    // Another xtask may be making the same tree.
    let one_at_a_time = File::create(home.join("lock")).and_then(|file| file.lock().map(|()| file));
    let _guard = one_at_a_time.with_context(|| format!("cannot write to {}", home.display()))?;
    let (tree, note) = (home.join("root"), home.join("recipe"));
    let recipe = Recipe { suite, archive: &archive()?, packages: packages::needed().join(",") };
    if !fs::read_to_string(&note).is_ok_and(|old| old == recipe.note()) {
        make(&recipe, &home, &tree)?;
        fs::write(&note, recipe.note())?;
    }
    Ok(tree)
}

/// Runs this program in `tree` with `arguments`. Returns true if it succeeded.
pub fn run(tree: &Path, arguments: &[String]) -> Result<bool> {
    let xtask = env::current_exe().context("cannot find this program")?;
    let mut inside = with_mounts();
    inside.args(["sh", "-c", ENTER, "sh"]).arg(tree).args([paths::root(), paths::target()]).arg("--");
    inside.arg(xtask).args(arguments);
    inside.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    Ok(inside.status().context("cannot run unshare")?.success())
}

/// Removes the trees, and what was left by runs in them.
pub fn clean() -> Result<()> {
    let all = paths::all_emulators();
    if all.exists() {
        remove(&all)?;
        println!("removed {}", all.display());
    }
    Ok(())
}

/// The description of what a tree is made from.
struct Recipe<'a> {
    suite: &'a str,
    archive: &'a str,
    packages: String,
}

impl Recipe<'_> {
    /// The content of the note beside the tree. If the note has another content, the tree is made again.
    fn note(&self) -> String {
        format!("{RECIPE}\n{}\n{}\n", self.source(), self.packages)
    }

    /// The line of a sources.list.
    fn source(&self) -> String {
        let Self { suite, archive, .. } = self;
        format!("deb [signed-by={}] {archive} {suite} main", KEYRING.0)
    }
}

/// Refuses a name that cannot be a suite's, such as one that would be taken for an option or for another folder.
fn check(suite: &str) -> Result<()> {
    let good = |c: char| c.is_ascii_alphanumeric() || c == '-';
    ensure!(
        suite.starts_with(|c: char| c.is_ascii_alphabetic()) && suite.chars().all(good),
        "\"{suite}\" is not a suite of Debian: name one, such as trixie"
    );
    Ok(())
}

/// The archive that this machine gets Debian's packages from, or Debian's own.
fn archive() -> Result<String> {
    if !packages::have_apt() {
        bail!("This system has no apt, which is needed to make a tree of Debian.");
    }
    let shell = Shell::new()?;
    let format = "$(REPO_URI) $(RELEASE) $(COMPONENT)";
    let filters = ["Created-By: Packages", "Origin: Debian"];
    let lines = cmd!(shell, "apt-get indextargets --format {format} {filters...}").quiet().read()?;
    Ok(archive_in(&lines).unwrap_or(ARCHIVE).to_owned())
}

/// The archive of the suite itself among `lines`, which is the one with the shortest name. The suite's updates and
/// other people's packages may be in other archives.
fn archive_in(lines: &str) -> Option<&str> {
    let words = lines.lines().filter_map(|line| {
        let mut words = line.split(' ');
        Some((words.next()?, words.next()?, words.next()?))
    });
    let main = words.filter(|(_, _, component)| *component == "main");
    main.min_by_key(|(_, suite, _)| suite.len()).map(|(archive, _, _)| archive)
}

/// Makes the tree, and replaces an old one.
fn make(recipe: &Recipe<'_>, home: &Path, tree: &Path) -> Result<()> {
    if !packages::has_program("mmdebstrap") {
        packages::install(&["mmdebstrap"])?;
    }
    if !Path::new(KEYRING.0).is_file() {
        packages::install(&[KEYRING.1])?;
    }
    if !is_root() && !packages::has_program("newuidmap") {
        packages::install(&["uidmap"])?;
    }
    let (suite, source) = (recipe.suite, recipe.source());
    progress::step(
        &format!("making a tree of Debian {suite} with its emulators, which takes some minutes"),
        || {
            let dir = tempfile::tempdir_in(home)?;
            let (tar, new) = (dir.path().join("root.tar"), dir.path().join("root"));
            let shell = Shell::new()?;
            let include = format!("--include={}", recipe.packages);
            // A mirror that is a snapshot of some day needs this setting, inside the tree as well as here.
            let age = cmd!(shell, "apt-config dump Acquire::Check-Valid-Until").quiet().read()?;
            let age = age.lines().map(|line| format!("--aptopt={line}"));
            let made = cmd!(
                shell,
                "mmdebstrap --variant=apt {include} {age...} --format=tar {suite} {tar} {source}"
            );
            let output = made.quiet().ignore_status().output()?;
            let said = String::from_utf8_lossy(&output.stderr);
            let errors: Vec<_> = said.lines().filter(|line| line.starts_with("E:")).collect();
            ensure!(output.status.success(), "mmdebstrap cannot make the tree: {}", errors.join(" "));
            let mut unpack = with_mounts();
            let output =
                unpack.args(["sh", "-c", UNPACK, "sh"]).arg(&tar).arg(&new).stdin(Stdio::null()).output()?;
            let said = String::from_utf8_lossy(&output.stderr);
            ensure!(output.status.success(), "the tree cannot be unpacked: {}", said.trim());
            if tree.exists() {
                remove(tree)?;
            }
            fs::rename(&new, tree).with_context(|| format!("cannot make {}", tree.display()))
        },
    )
}

/// Removes the folder, whose files may belong to other users.
fn remove(folder: &Path) -> Result<()> {
    let removed = with_mounts().args(["rm", "-rf"]).arg(folder).stdin(Stdio::null()).status()?;
    ensure!(removed.success(), "cannot remove {}", folder.display());
    Ok(())
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A command to which another one is added, to run it in a mount namespace of its own. It has root's rights there even
/// if this process has not.
fn with_mounts() -> Command {
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private"]);
    if !is_root() {
        command.args(["--map-root-user", "--map-auto"]);
    }
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_archive_of_the_suite_itself_is_chosen() {
        let lines = "http://x/debian-security/ bookworm-security main\nhttp://y/debian/ bookworm main\n\
                     http://y/debian/ bookworm contrib\nhttp://z/debian/ bookworm-updates main\n";
        assert_eq!(archive_in(lines), Some("http://y/debian/"));
        assert_eq!(archive_in("http://y/debian/ bookworm contrib\n"), None);
        assert_eq!(archive_in(""), None);
    }

    #[test]
    fn different_recipes_have_different_notes() {
        let recipe = |suite, packages: &str| {
            Recipe { suite, archive: "http://x/", packages: packages.to_owned() }.note()
        };
        assert_eq!(recipe("trixie", "bochs"), recipe("trixie", "bochs"));
        assert_ne!(recipe("trixie", "bochs"), recipe("sid", "bochs"));
        assert_ne!(recipe("trixie", "bochs"), recipe("trixie", "bochs,ovmf"));
        assert!(recipe("trixie", "bochs").contains("http://x/ trixie main\n"));
    }

    #[test]
    fn names_that_cannot_be_a_suites_are_refused() {
        for good in ["trixie", "sid", "trixie-backports", "Debian13"] {
            check(good).unwrap();
        }
        for bad in ["", "..", "--x", "a/b", "a b", "13"] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }
}
