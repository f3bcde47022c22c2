//! Builds the programs for the ISO: the hypervisor, and the guest's tool.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::paths::{self, BARE_TARGET, GUEST_TARGET};
use crate::strip::strip;
use crate::{build_id, prefixes, source};

/// The programs for the ISO.
#[derive(Debug, Clone)]
pub struct Programs {
    /// The hypervisor's image.
    pub hypervisor: PathBuf,
    /// The guest's tool.
    pub vidarctl: PathBuf,
}

/// Builds the hypervisor and the guest's tool.
pub fn all() -> Result<Programs> {
    product(&["-p", "hv", "--bin", "vidar-hv"], BARE_TARGET)?;
    strip_image()?;
    Ok(Programs { hypervisor: paths::hypervisor(), vidarctl: vidarctl()? })
}

/// Makes the image that GRUB loads out of the one that the linker has written, and gives both their build ID. In a tree
/// of emulators both are there already.
fn strip_image() -> Result<()> {
    if paths::suite().is_some() {
        return Ok(());
    }
    let (from, to) = (paths::image_with_symbols(), paths::hypervisor());
    let linked = fs::read(&from).with_context(|| format!("cannot read {}", from.display()))?;
    let (mut loaded, mut with_symbols) = (strip(&linked)?, linked.clone());
    build_id::stamp(&mut loaded, &mut with_symbols)?;
    if with_symbols != linked {
        fs::write(&from, with_symbols).with_context(|| format!("cannot write {}", from.display()))?;
    }
    // A machine may be reading the file.
    if fs::read(&to).is_ok_and(|present| present == loaded) {
        return Ok(());
    }
    fs::write(&to, loaded).with_context(|| format!("cannot write {}", to.display()))
}

/// Builds the guest's tool.
pub fn vidarctl() -> Result<PathBuf> {
    product(&["-p", "vidarctl"], GUEST_TARGET)?;
    Ok(paths::vidarctl())
}

/// Builds a program that users get, and tells it the commit that it is built from. Its bytes depend on the commit and
/// the toolchain alone.
fn product(what: &[&str], target: &str) -> Result<()> {
    let mut command = cargo_command(&["build", "--release", "--target", target]);
    command.args(what).args(["--config", &prefixes::config(target)?]).env_remove(source::COMMIT_VARIABLE);
    if let Some(commit) = source::commit() {
        command.env(source::COMMIT_VARIABLE, commit);
    }
    run(command)
}

/// Builds one of the tests' programs for guests, by the name of its package: `stress` or `mutate`.
pub fn guest_program(name: &str) -> Result<PathBuf> {
    cargo(&["build", "--release", "-p", name, "--target", GUEST_TARGET])?;
    Ok(paths::target().join(GUEST_TARGET).join("release").join(name))
}

/// Builds the hypervisor that tries the entry rules on the CPU, for the test of these rules.
pub fn trial() -> Result<()> {
    let arguments = [
        "build",
        "--release",
        "-p",
        "hv",
        "--bin",
        "vidar-hv",
        "--features",
        "trial",
        "--target",
        BARE_TARGET,
    ];
    run(cargo_command_into(&paths::trial_target(), &arguments))
}

/// Prints the sizes of the programs.
pub fn print_sizes(programs: &Programs) -> Result<()> {
    for (what, file) in [("vidar-hv", &programs.hypervisor), ("vidarctl", &programs.vidarctl)] {
        println!("{what}: {} KiB, {}", size(file)?.div_ceil(1024), file.display());
    }
    Ok(())
}

/// The size of a file in bytes.
pub fn size(file: &Path) -> Result<u64> {
    Ok(fs::metadata(file).with_context(|| format!("cannot look at {}", file.display()))?.len())
}

/// Runs cargo in the checkout, with its output on the user's terminal. In a tree of emulators there is no cargo, and
/// everything has been built before.
pub fn cargo(arguments: &[&str]) -> Result<()> {
    run(cargo_command(arguments))
}

fn run(mut cargo: Command) -> Result<()> {
    if paths::suite().is_some() {
        return Ok(());
    }
    let status = cargo.status().context("cannot run cargo")?;
    if !status.success() {
        let arguments: Vec<_> = cargo.get_args().map(|argument| argument.to_string_lossy()).collect();
        bail!("cargo {} failed", arguments.join(" "));
    }
    Ok(())
}

/// The command that runs cargo in the checkout, independently of settings in the user's environment.
pub fn cargo_command(arguments: &[&str]) -> Command {
    cargo_command_into(&paths::target(), arguments)
}

/// The same command with another folder for what cargo builds.
pub fn cargo_command_into(folder: &Path, arguments: &[&str]) -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(arguments).current_dir(paths::root());
    // The output is expected in this folder. If it went elsewhere, an old image would be used.
    cargo.arg("--target-dir").arg(folder);
    // These variables would replace the flags in .cargo/config.toml, without which the hypervisor does not link.
    cargo.env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS");
    cargo
}
