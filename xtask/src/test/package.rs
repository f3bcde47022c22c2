//! Has Debian's lintian look at the package that `cargo xtask deb` makes.

use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::Tools;
use crate::build::Programs;
use crate::package::{self, Version};
use crate::packages;

/// The name of the test.
pub const NAME: &str = "package/lintian";
/// The reason why it is not run, where lintian is missing.
const NO_LINTIAN: &str = "there is no lintian here; `apt install lintian` installs it";

/// Returns the reason why the test is not run, if there is one.
pub fn left_out() -> Option<&'static str> {
    (!packages::has_program("lintian")).then_some(NO_LINTIAN)
}

/// Expects that lintian finds no errors. Warnings change with its version.
pub fn lintian(tools: &Tools) -> Result<()> {
    let programs = Programs { hypervisor: tools.hypervisor.clone(), vidarctl: tools.vidarctl.clone() };
    let package = package::make(Version::new(None)?, &programs)?;
    let mut lintian = Command::new("lintian");
    let output = lintian.arg("--no-cfg").arg(&package).output().context("cannot run lintian")?;
    let said = String::from_utf8_lossy(&output.stdout);
    let errors: Vec<_> = said.lines().filter(|line| line.starts_with("E:")).collect();
    ensure!(errors.is_empty(), "lintian found {}", errors.join(", "));
    // Errors in the package are one reason to fail, and one in lintian is another.
    ensure!(output.status.success(), "lintian failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}
