//! The crates that cargo builds a program from.

use std::collections::BTreeSet;
use std::env;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::paths;

/// Runs cargo in the checkout, and returns what it prints.
pub fn cargo(arguments: &[&str]) -> Result<String> {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    let output = cargo.args(arguments).current_dir(paths::root()).output().context("cannot run cargo")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "cargo {} failed: {}", arguments[0], said.trim());
    Ok(String::from_utf8(output.stdout)?)
}

/// Returns the name and the version of `package` and of each crate that it depends on for `target` by the dependencies
/// that cargo calls `edges`.
pub fn tree(package: &str, target: &str, edges: &str) -> Result<BTreeSet<(String, String)>> {
    let what = ["tree", "--package", package, "--target", target, "--edges", edges];
    let form = ["--prefix", "none", "--format", "{p}", "--locked"];
    let tree = cargo(&[&what[..], &form].concat())?;
    Ok(tree.lines().filter_map(name_and_version).collect())
}

/// Returns the name and the version in a line like `log v0.4.35 (more)`.
fn name_and_version(line: &str) -> Option<(String, String)> {
    let mut words = line.split(' ');
    Some((words.next()?.to_owned(), words.next()?.strip_prefix('v')?.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_tree_has_a_name_and_a_version() {
        let of = |line| name_and_version(line);
        assert_eq!(of("log v0.4.35"), Some(("log".to_owned(), "0.4.35".to_owned())));
        assert_eq!(of("hv v0.1.0 (/folder)"), Some(("hv".to_owned(), "0.1.0".to_owned())));
        assert_eq!(of(""), None);
    }
}
