//! Tries the parsers with many inputs: `hv/core/tests/robust`, which `cargo xtask test` runs with some thousand.

use std::num::NonZeroU32;

use anyhow::{Context, Result, bail};

use super::PACKAGE;
use crate::build;

/// Gives each parser whose name contains `filter` this many inputs.
pub fn run(inputs: NonZeroU32, filter: Option<&str>) -> Result<()> {
    let mut cargo = build::cargo_command(&["test", "--profile", "robust", "-p", PACKAGE, "--test", "robust"]);
    cargo.args(["--", "--nocapture"]).args(filter);
    cargo.env("VIDAR_ROBUST_INPUTS", inputs.to_string());
    if !cargo.status().context("cannot run cargo")?.success() {
        bail!(
            "a parser failed, or its test cannot be built; an input that failed is in hv/core/tests/robust/corpus now"
        );
    }
    Ok(())
}
