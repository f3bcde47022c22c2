//! Checks which crates the project uses, by cargo-deny and `xtask/deny.toml`.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{build, packages, paths, progress};

/// The version that is built where there is no cargo-deny.
const VERSION: &str = "0.20.2";

/// Checks licences, duplicates and sources, and known faults of crates where the list of these can be had.
pub fn run() -> Result<()> {
    let program = program()?;
    let deny = |arguments: &[&str]| {
        let mut command = Command::new(&program);
        command.args(["--locked", "--config", "xtask/deny.toml"]).args(arguments).current_dir(paths::root());
        command
    };
    let check = |arguments: &[&str]| -> Result<bool> {
        Ok(deny(arguments).status().context("cannot run cargo-deny")?.success())
    };
    let rules = check(&["--offline", "check", "licenses", "bans", "sources"])?;
    let fetched = deny(&["fetch", "db"]).output().context("cannot run cargo-deny")?;
    let advisories = if fetched.status.success() {
        check(&["check", "--disable-fetch", "advisories"])?
    } else {
        println!("advisories not checked: the list at github.com/RustSec/advisory-db cannot be fetched here");
        true
    };
    if !rules || !advisories {
        bail!("cargo-deny found crates that the project may not use; xtask/deny.toml has the rules");
    }
    Ok(())
}

/// cargo-deny: the user's own, or one that is built under `target`.
fn program() -> Result<PathBuf> {
    if let Some(program) = packages::program("cargo-deny") {
        return Ok(program);
    }
    let folder = paths::target().join("tools");
    let program = folder.join("bin/cargo-deny");
    if !program.is_file() {
        progress::step("building cargo-deny, which takes some minutes", || {
            let built = folder.join("build");
            let mut cargo = build::cargo_command_into(
                &built,
                &["install", "cargo-deny", "--version", VERSION, "--locked", "--quiet"],
            );
            let output = cargo.arg("--root").arg(&folder).output().context("cannot run cargo")?;
            if !output.status.success() {
                let said = String::from_utf8_lossy(&output.stderr);
                bail!("cargo-deny cannot be built; install it (cargo install cargo-deny): {}", said.trim());
            }
            fs::remove_dir_all(&built).context("cannot remove what was built on the way")
        })?;
    }
    Ok(program)
}
