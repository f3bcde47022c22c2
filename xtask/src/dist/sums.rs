//! The checksums of a release's files, which `sha256sum -c SHA256SUMS` verifies.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// The name of the file with the checksums.
const NAME: &str = "SHA256SUMS";

/// Writes the checksums of all files in `folder` into a file beside them.
pub fn write(folder: &Path) -> Result<()> {
    let mut sha256sum = Command::new("sha256sum");
    let output = sha256sum.arg("--").args(files(folder)?).current_dir(folder).output();
    let output = output.context("cannot run sha256sum, which is a part of coreutils")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "sha256sum failed: {}", said.trim());
    let sums = folder.join(NAME);
    fs::write(&sums, output.stdout).with_context(|| format!("cannot write {}", sums.display()))
}

/// Returns the names of the files in `folder`, in their order.
pub fn files(folder: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut names = Vec::new();
    for entry in entries {
        names.push(entry?.file_name().into_string().ok().context("a file's name is not UTF-8")?);
    }
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The checksum of a file without content (FIPS 180-4).
    const OF_NOTHING: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn verifies(folder: &Path) -> bool {
        let mut sha256sum = Command::new("sha256sum");
        let output = sha256sum.args(["--check", "--strict", NAME]).current_dir(folder).output().unwrap();
        output.status.success()
    }

    #[test]
    fn each_file_has_a_checksum_that_is_verified() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        fs::write(folder.join("b.iso"), "").unwrap();
        fs::write(folder.join("a b"), "content").unwrap();
        write(folder).unwrap();
        let sums = fs::read_to_string(folder.join(NAME)).unwrap();
        let lines: Vec<_> = sums.lines().collect();
        assert!(lines.len() == 2 && lines[0].ends_with("  a b"), "{sums}");
        assert_eq!(lines[1], format!("{OF_NOTHING}  b.iso"));
        assert!(verifies(folder));
        fs::write(folder.join("a b"), "another content").unwrap();
        assert!(!verifies(folder), "a file has changed");
    }
}
