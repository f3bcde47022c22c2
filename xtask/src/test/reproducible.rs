//! Makes a release twice from the same commit, in two clones under different circumstances, and compares the files.

use std::env;
use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};

use super::report::Report;
use super::test_dir;
use crate::{dist, paths, prefixes, source};

/// A test for each file of a release but the checksums, which then are the same too: its name, and how the file's name
/// ends.
const FILES: [(&str, &str); 6] = [
    ("reproducible/image", "vidar.elf"),
    ("reproducible/vidarctl", "vidarctl"),
    ("reproducible/iso", ".iso"),
    ("reproducible/package", ".deb"),
    ("reproducible/crates-of-image", "vidar.cdx.json"),
    ("reproducible/crates-of-vidarctl", "vidarctl.cdx.json"),
];

/// The folder of the logs.
const FOLDER: &str = "reproducible";

/// A day long ago, for the source files of the second clone: January 1, 2001.
const LONG_AGO: Duration = Duration::from_secs(978_307_200);

/// Returns the names of the tests.
pub fn names() -> Vec<String> {
    FILES.map(|(name, _)| name.to_owned()).into()
}

/// Makes both releases and compares them.
pub fn all(report: &Report) -> Result<()> {
    if source::commit().is_none() {
        let why = "this source is not a clone of a git repository, so there is no commit to build from";
        FILES.iter().for_each(|(name, _)| report.skip(name, why));
        return Ok(());
    }
    let begun = Instant::now();
    match releases() {
        Ok((_folder, first, second)) => {
            for (name, end) in FILES {
                report.result(name, begun, compare(&first, &second, end), None);
            }
        }
        Err(error) => FILES.iter().for_each(|(name, _)| report.fail(name, begun.elapsed(), &error, None)),
    }
    Ok(())
}

/// Makes both releases. Returns the folder of both clones, which is removed when it is dropped, and the releases.
fn releases() -> Result<(tempfile::TempDir, PathBuf, PathBuf)> {
    let logs = test_dir(FOLDER)?;
    // A clone within this checkout would have cargo read the settings of both.
    let folder = tempfile::tempdir()?;
    let first = Clone::make(folder.path().join("a"))?;
    let second = Clone::make(folder.path().join("another folder with a longer name/b"))?;
    second.date_files()?;
    let cargo_home = folder.path().join("cargo");
    symlink(prefixes::cargo_home()?, &cargo_home)?;
    let releases = [
        first.release("022", &[], &logs.join("first.log")),
        second.release(
            "077",
            &[
                ("CARGO_HOME", cargo_home.as_os_str().to_owned()),
                ("TZ", "Asia/Kathmandu".into()),
                ("LC_ALL", "C.UTF-8".into()),
            ],
            &logs.join("second.log"),
        ),
    ];
    let [first, second] = releases;
    Ok((folder, first?, second?))
}

/// A clone of this checkout.
struct Clone(PathBuf);

impl Clone {
    /// Clones the commit of this checkout, and copies the guests' files, from which an ISO is made too.
    fn make(folder: PathBuf) -> Result<Self> {
        let mut git = Command::new("git");
        run(git.args(["clone", "--quiet"]).arg(paths::root()).arg(&folder))?;
        let target = paths::ensure(folder.join("target"))?;
        // The copies have the date of today.
        run(Command::new("cp").arg("--recursive").arg(paths::guests()).arg(target))?;
        Ok(Self(folder))
    }

    /// Gives each source file another date.
    fn date_files(&self) -> Result<()> {
        let files = run(Command::new("git").arg("-C").arg(&self.0).args(["ls-files", "-z"]))?;
        for file in files.split('\0').filter(|file| !file.is_empty()) {
            File::open(self.0.join(file))?.set_modified(UNIX_EPOCH + LONG_AGO)?;
        }
        Ok(())
    }

    /// Makes a release with these variables in the environment. Returns its folder.
    fn release(&self, umask: &str, variables: &[(&str, OsString)], log: &Path) -> Result<PathBuf> {
        // The clone is made into a release by this xtask, since another one would have to be built first.
        let mut sh = Command::new("sh");
        sh.args(["-c", "umask $0 && exec \"$@\"", umask]).arg(env::current_exe()?).arg("dist");
        sh.env("CARGO_MANIFEST_DIR", self.0.join("xtask")).current_dir(&self.0);
        // Only the commit says the date, and cargo-cyclonedx is not built for each clone.
        sh.env_remove("CARGO_TARGET_DIR").env_remove(source::DATE_VARIABLE);
        let tool = dist::tool()?;
        let tools = tool.parent().context("cargo-cyclonedx is in no folder")?.to_owned();
        let path = env::var_os("PATH").unwrap_or_default();
        sh.env("PATH", env::join_paths([tools].into_iter().chain(env::split_paths(&path)))?);
        sh.envs(variables.iter().map(|(name, value)| (name, value)));
        let output = File::create(log)?;
        let status = sh.stdout(output.try_clone()?).stderr(output).status().context("cannot run sh")?;
        ensure!(status.success(), "a clone gives no release: see {}", log.display());
        Ok(self.0.join("target/dist"))
    }
}

/// Runs a program, and returns what it prints.
fn run(command: &mut Command) -> Result<String> {
    let program = command.get_program().display().to_string();
    let output = command.output().with_context(|| format!("cannot run {program}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program} failed: {}", said.trim());
    Ok(String::from_utf8(output.stdout)?)
}

/// Compares the file whose name ends with `end` in both folders.
fn compare(first: &Path, second: &Path, end: &str) -> Result<()> {
    let (name, one) = read(first, end)?;
    let (other_name, other) = read(second, end)?;
    ensure!(name == other_name, "the files are called {name} and {other_name}");
    same(&one, &other).with_context(|| format!("{name} is not the same in both releases"))
}

fn read(folder: &Path, end: &str) -> Result<(String, Vec<u8>)> {
    for entry in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.ends_with(end) {
            return Ok((name, fs::read(entry.path())?));
        }
    }
    bail!("no file in {} ends with {end}", folder.display())
}

/// Checks that two files have the same bytes.
fn same(one: &[u8], other: &[u8]) -> Result<()> {
    if one == other {
        return Ok(());
    }
    let different = one.iter().zip(other).filter(|(byte, other)| byte != other).count();
    let first = one.iter().zip(other).position(|(byte, other)| byte != other);
    let first =
        first.map_or_else(String::new, |at| format!(", {different} bytes differ, the first at {at:#x}"));
    bail!("they have {} and {} bytes{first}", one.len(), other.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_differ_are_told_apart() {
        same(b"abcd", b"abcd").unwrap();
        for (other, sentence) in [
            (&b"abXX"[..], "they have 4 and 4 bytes, 2 bytes differ, the first at 0x2"),
            (b"abcde", "they have 4 and 5 bytes"),
            (b"Xbc", "they have 4 and 3 bytes, 1 bytes differ, the first at 0x0"),
        ] {
            assert_eq!(same(b"abcd", other).unwrap_err().to_string(), sentence);
        }
    }
}
