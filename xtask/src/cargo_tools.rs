//! Gets cargo's subcommands that the project uses and that come in crates of their own.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use crate::{build, packages, paths, progress};

/// Returns the program of the crate `name`: the user's own, or one of this version that is built under `target`.
pub fn get(name: &str, version: &str) -> Result<PathBuf> {
    if let Some(program) = packages::program(name) {
        return Ok(program);
    }
    let folder = paths::target().join("tools");
    let program = folder.join("bin").join(name);
    if !program.is_file() {
        progress::step(&format!("building {name}, which takes some minutes"), || {
            let built = folder.join("build");
            let mut cargo = build::cargo_command_into(
                &built,
                &["install", name, "--version", version, "--locked", "--quiet"],
            );
            let output = cargo.arg("--root").arg(&folder).output().context("cannot run cargo")?;
            if !output.status.success() {
                let said = String::from_utf8_lossy(&output.stderr);
                bail!("{name} cannot be built; install it (cargo install {name}): {}", said.trim());
            }
            fs::remove_dir_all(&built).context("cannot remove what was built on the way")
        })?;
    }
    Ok(program)
}
