//! The crates that are linked into a program, with their folders, as cargo knows them.

use std::collections::BTreeSet;
use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::paths;

/// A crate, as `cargo metadata` describes it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Crate {
    /// The name.
    pub name: String,
    /// The version.
    pub version: String,
    /// The licence, in the terms of SPDX.
    #[serde(default)]
    pub license: Option<String>,
    /// Who wrote it.
    #[serde(default)]
    pub authors: Vec<String>,
    /// The path of its `Cargo.toml`.
    pub manifest_path: PathBuf,
    /// Where it comes from. The project's own crates come from nowhere.
    #[serde(default)]
    pub source: Option<String>,
}

impl Crate {
    /// Returns the folder of the crate's files.
    pub fn folder(&self) -> &Path {
        self.manifest_path.parent().expect("a file is in a folder")
    }

    /// Returns the name with the version.
    pub fn full_name(&self) -> String {
        format!("{}-{}", self.name, self.version)
    }
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Crate>,
}

/// Returns all crates of the workspace and those that these depend on.
pub fn all() -> Result<Vec<Crate>> {
    let text = cargo(&["metadata", "--format-version", "1", "--locked"])?;
    Ok(serde_json::from_str::<Metadata>(&text).context("cargo metadata cannot be read")?.packages)
}

/// Returns those of `all` from elsewhere that are linked into the package for the target. Crates that only run while
/// others are compiled are not linked.
pub fn into(package: &str, target: &str, all: &[Crate]) -> Result<Vec<Crate>> {
    let tree = ["tree", "--locked", "--edges", "normal,no-proc-macro", "--prefix", "none", "--no-dedupe"];
    let lines = cargo(&[&tree[..], &["--format", "{p}", "--package", package, "--target", target]].concat())?;
    let names: BTreeSet<_> = lines.lines().filter_map(name_and_version).collect();
    let linked = all.iter().filter(|one| one.source.is_some());
    let linked = linked.filter(|one| names.contains(&(one.name.as_str(), one.version.as_str())));
    Ok(linked.cloned().collect())
}

/// Returns the name and the version of a line like `log v0.4.35 (more)`.
fn name_and_version(line: &str) -> Option<(&str, &str)> {
    let mut words = line.split(' ');
    Some((words.next()?, words.next()?.strip_prefix('v')?))
}

fn cargo(arguments: &[&str]) -> Result<String> {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    let output = cargo.args(arguments).current_dir(paths::root()).output().context("cannot run cargo")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "cargo {} failed: {}", arguments[0], said.trim());
    Ok(String::from_utf8(output.stdout)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_tree_has_a_name_and_a_version() {
        assert_eq!(name_and_version("log v0.4.35"), Some(("log", "0.4.35")));
        assert_eq!(name_and_version("hv v0.1.0 (/folder)"), Some(("hv", "0.1.0")));
        assert_eq!(name_and_version(""), None);
    }

    #[test]
    fn the_crates_of_the_image_are_those_that_it_runs() {
        let linked = into("hv", paths::BARE_TARGET, &all().unwrap()).unwrap();
        let names: Vec<_> = linked.iter().map(|one| one.name.as_str()).collect();
        for name in ["multiboot2", "x86_64", "spin"] {
            assert!(names.contains(&name), "{names:?}");
        }
        for name in ["hv", "vidar-core", "syn", "thiserror-impl", "clap", "proptest"] {
            assert!(!names.contains(&name), "{names:?}");
        }
    }
}
