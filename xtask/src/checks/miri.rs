//! Runs the tests of the package that only decides under Miri, which finds undefined behaviour: `cargo xtask miri`.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::PACKAGE;
use crate::{packages, paths, progress};

/// Miri is a part of nightly toolchains alone.
const TOOLCHAIN: &str = "nightly";
/// Cases of each property test: Miri takes some hundred times as long as the CPU.
const CASES: &str = "4";
/// New inputs of a parser, beside those of the corpus.
const INPUTS: &str = "10";

/// Runs the unit tests whose names contain `filter`; without one also the parser that a crate with unsafe code does the
/// first part of.
pub fn run(filter: Option<&str>) -> Result<()> {
    if !has_miri() {
        progress::step("adding Miri to the nightly toolchain", add)?;
    }
    let mut unit_tests = miri();
    test(unit_tests.arg("--lib").args(filter))?;
    if filter.is_none() {
        test(miri().args(["--test", "robust", "multiboot2"]))?;
    }
    Ok(())
}

/// Returns the command that runs tests of the package under Miri.
fn miri() -> Command {
    let mut rustup = Command::new("rustup");
    rustup.args(["run", TOOLCHAIN, "cargo", "miri", "test", "-p", PACKAGE, "--target-dir"]);
    rustup.arg(paths::target().join("miri")).current_dir(paths::root());
    rustup.env("PROPTEST_CASES", CASES).env("VIDAR_ROBUST_INPUTS", INPUTS);
    // Tests read files: inputs that failed before, and the corpus. They leak what lives as long as Vidar does.
    rustup.env("MIRIFLAGS", "-Zmiri-disable-isolation -Zmiri-ignore-leaks");
    // These name the toolchain that this program is run by.
    rustup.env_remove("CARGO").env_remove("RUSTUP_TOOLCHAIN").env_remove("RUSTFLAGS");
    rustup
}

fn test(command: &mut Command) -> Result<()> {
    if !command.status().context("cannot run rustup")?.success() {
        bail!("a test failed under Miri, or cannot be built for it; the lines above say which");
    }
    Ok(())
}

fn has_miri() -> bool {
    let mut miri = Command::new("rustup");
    miri.args(["run", TOOLCHAIN, "cargo", "miri", "--version"]).current_dir(paths::root());
    miri.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

/// Adds Miri and the sources of the standard library, which it interprets.
fn add() -> Result<()> {
    if !packages::has_program("rustup") {
        bail!("Miri needs a nightly toolchain, and there is no rustup here that could fetch one");
    }
    let arguments =
        ["toolchain", "install", TOOLCHAIN, "--profile", "minimal", "--component", "miri,rust-src"];
    let output = Command::new("rustup").args(arguments).output().context("cannot run rustup")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("there is no nightly toolchain with Miri here, and rustup cannot fetch one: {}", said.trim());
    }
    Ok(())
}
