//! Builds what goes onto the ISO: the hypervisor, and the guest's tool.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::paths::{self, BARE_TARGET, GUEST_TARGET};

/// What was built.
#[derive(Debug, Clone)]
pub struct Built {
    /// The hypervisor's image.
    pub hypervisor: PathBuf,
    /// The guest's tool.
    pub vidarctl: PathBuf,
}

/// Builds both.
pub fn all() -> Result<Built> {
    cargo(&["build", "--release", "-p", "hv", "--bin", "vidar-hv", "--target", BARE_TARGET])?;
    Ok(Built { hypervisor: paths::hypervisor(), vidarctl: vidarctl()? })
}

/// Builds the guest's tool alone.
pub fn vidarctl() -> Result<PathBuf> {
    cargo(&["build", "--release", "-p", "vidarctl", "--target", GUEST_TARGET])?;
    Ok(paths::vidarctl())
}

/// Builds a program of the tests, by the name of its package, for guests: `stress` or `mutate`.
pub fn guest_program(name: &str) -> Result<PathBuf> {
    cargo(&["build", "--release", "-p", name, "--target", GUEST_TARGET])?;
    Ok(paths::target().join(GUEST_TARGET).join("release").join(name))
}

/// Prints how large the files are.
pub fn print_sizes(built: &Built) -> Result<()> {
    for (what, file) in [("vidar-hv", &built.hypervisor), ("vidarctl", &built.vidarctl)] {
        println!("{what}: {} KiB, {}", size(file)?.div_ceil(1024), file.display());
    }
    Ok(())
}

/// The size of a file in bytes.
pub fn size(file: &Path) -> Result<u64> {
    Ok(fs::metadata(file).with_context(|| format!("cannot look at {}", file.display()))?.len())
}

/// Runs cargo in the checkout; what it says goes to the user's terminal. In a tree of emulators there is no cargo, and all was built
/// before.
pub fn cargo(arguments: &[&str]) -> Result<()> {
    if paths::suite().is_some() {
        return Ok(());
    }
    let status = cargo_command(arguments).status().context("cannot run cargo")?;
    if !status.success() {
        bail!("cargo {} failed", arguments.join(" "));
    }
    Ok(())
}

/// The command that runs cargo in the checkout, the same whatever the user's environment asks of cargo.
pub fn cargo_command(arguments: &[&str]) -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(arguments).current_dir(paths::root());
    // Where its output is looked for afterwards: otherwise it may go elsewhere, and an old image would be taken.
    cargo.arg("--target-dir").arg(paths::target());
    // They would replace the flags of .cargo/config.toml, without which the hypervisor does not link.
    cargo.env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS");
    cargo
}
