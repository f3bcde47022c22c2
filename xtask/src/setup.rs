//! Gets what is missing: Rust targets, packages of the system, the guests' kernels and busybox.

use std::fs;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::guests::{self, Freshness};
use crate::{manifest, modules, packages, paths, progress};

/// Everything, and the guests' kernels as new as apt has them.
pub fn all() -> Result<()> {
    tools()?;
    if packages::have_apt()
        && let Err(error) = packages::update()
    {
        eprintln!("warning: {error:#}; newer kernels than apt knows of are not looked for");
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

/// All that is missing, and no more: for work that makes ISOs. Threads find the guests' files ready after it.
pub fn missing() -> Result<()> {
    tools()?;
    for guest in manifest::load()? {
        guests::kernel(&guest, Freshness::Any)?;
        modules::drivers(&guest);
    }
    guests::busybox(Freshness::Any)?;
    Ok(())
}

/// The Rust targets, emulators and image tools; quick if they are there.
pub fn tools() -> Result<()> {
    // In a tree of emulators there is no Rust, and all was built before.
    if paths::suite().is_none() {
        rust_targets()?;
    }
    let missing = packages::missing();
    if missing.is_empty() { Ok(()) } else { packages::install(&missing) }
}

/// The Rust targets, for work whose emulators and image tools are elsewhere.
pub fn rust_targets() -> Result<()> {
    [paths::BARE_TARGET, paths::GUEST_TARGET].into_iter().try_for_each(rust_target)
}

fn rust_target(target: &str) -> Result<()> {
    if has_rust_target(target)? {
        return Ok(());
    }
    if !packages::has_program("rustup") {
        bail!("Rust's target {target} is missing and there is no rustup here; install its standard library.");
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
