//! Gets what is missing: Rust targets, packages of this system, the guests' kernels and busybox.

use std::fs;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::guests::{self, Freshness};
use crate::{manifest, modules, packages, paths, progress};

/// Gets everything, with the newest of the guests' kernels that apt offers.
pub fn all() -> Result<()> {
    tools()?;
    if packages::have_apt()
        && let Err(error) = packages::update()
    {
        eprintln!("warning: {error:#}: only kernels in the old package lists can be found");
    }
    let _ = fs::remove_dir_all(paths::packages());
    for guest in manifest::load()? {
        let kernel = guests::kernel(&guest, Freshness::Newest)?;
        modules::drivers(&guest);
        println!("guest {}: {}", guest.name, kernel.display());
    }
    println!("busybox: {}", guests::busybox(Freshness::Newest)?.display());
    println!("Nothing is missing.");
    Ok(())
}

/// Gets only what is missing to make ISOs. After that, several threads can use the guests' files.
pub fn missing() -> Result<()> {
    tools()?;
    for guest in manifest::load()? {
        guests::kernel(&guest, Freshness::Any)?;
        modules::drivers(&guest);
    }
    guests::busybox(Freshness::Any)?;
    Ok(())
}

/// Gets the Rust targets, the emulators and the tools for images. This is quick if nothing is missing.
pub fn tools() -> Result<()> {
    // In a tree of emulators there is no Rust, and everything has been built before.
    if paths::suite().is_none() {
        rust_targets()?;
    }
    let missing = packages::missing();
    if missing.is_empty() { Ok(()) } else { packages::install(&missing) }
}

/// Gets the Rust targets, for work that uses the emulators and tools of another system.
pub fn rust_targets() -> Result<()> {
    [paths::BARE_TARGET, paths::GUEST_TARGET].into_iter().try_for_each(rust_target)
}

fn rust_target(target: &str) -> Result<()> {
    if has_rust_target(target)? {
        return Ok(());
    }
    if !packages::has_program("rustup") {
        bail!("Rust's target {target} is missing, and there is no rustup here: install its standard library");
    }
    progress::step(&format!("adding the Rust target {target}"), || {
        let rustup =
            Command::new("rustup").args(["target", "add", target]).current_dir(paths::root()).output();
        let output = rustup.context("cannot run rustup")?;
        if !output.status.success() {
            bail!("rustup cannot add {target}: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(())
    })
}

fn has_rust_target(target: &str) -> Result<bool> {
    let mut rustc = Command::new("rustc");
    rustc
        .args(["--print", "target-libdir", "--target", target])
        .current_dir(paths::root())
        .stderr(Stdio::null());
    let output = rustc.output().context("cannot run rustc")?;
    Ok(std::path::Path::new(String::from_utf8_lossy(&output.stdout).trim()).is_dir())
}
