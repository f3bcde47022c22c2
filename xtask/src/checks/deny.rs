//! Checks which crates the project uses, by cargo-deny and `xtask/deny.toml`.

use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{cargo_tools, paths};

/// The version that is built where there is no cargo-deny.
const VERSION: &str = "0.20.2";

/// Checks licences, duplicates and sources, and known faults of crates where the list of these can be had.
pub fn run() -> Result<()> {
    let program = cargo_tools::get("cargo-deny", VERSION)?;
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
