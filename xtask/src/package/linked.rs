//! The crates that are linked into a program, with their folders, as cargo knows them.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::linked_crates;

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
    let text = linked_crates::cargo(&["metadata", "--format-version", "1", "--locked"])?;
    Ok(serde_json::from_str::<Metadata>(&text).context("cargo metadata cannot be read")?.packages)
}

/// Returns those of `all` from elsewhere that are linked into the package for the target. Crates that only run while
/// others are compiled are not linked.
pub fn into(package: &str, target: &str, all: &[Crate]) -> Result<Vec<Crate>> {
    let names = linked_crates::tree(package, target, "normal,no-proc-macro")?;
    let linked = all.iter().filter(|one| one.source.is_some());
    let linked = linked.filter(|one| names.contains(&(one.name.clone(), one.version.clone())));
    Ok(linked.cloned().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::paths;

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
