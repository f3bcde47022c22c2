//! Hides from programs in which folders of this machine they were built, so that they have the same bytes anywhere.
//!
//! Messages of panics name source files. The compiler is given the files of the workspace by relative paths, and it
//! names those of its own library by the hash of its commit. Crates and what build scripts generate have absolute
//! paths.

use std::env;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::paths;

/// Returns the value of cargo's option `--config` that hides the folders from programs for `target`. Cargo adds the
/// flags to those of `.cargo/config.toml`. Build scripts and macros run on this machine and are left alone.
pub fn config(target: &str) -> Result<String> {
    let sources = cargo_home()?.join("registry/src");
    // Of several folders that contain a file, the last one counts.
    let folders = [(paths::root(), "."), (paths::target(), "./target"), (sources, "/crates")];
    let flag = |(folder, name): (PathBuf, &str)| {
        let folder = folder.into_os_string().into_string();
        let folder =
            folder.ok().context("the path of the project, or of cargo's folder, is not UTF-8: rename it")?;
        Ok(toml::Value::String(format!("--remap-path-prefix={folder}={name}")))
    };
    let flags = folders.into_iter().map(flag).collect::<Result<Vec<_>>>()?;
    Ok(format!("target.{target}.rustflags={}", toml::Value::Array(flags)))
}

/// Returns the folder in which cargo keeps the sources of crates, among other things.
pub fn cargo_home() -> Result<PathBuf> {
    let given = env::var_os("CARGO_HOME").filter(|folder| !folder.is_empty());
    // Cargo takes a relative path from the folder in which it runs.
    let given = given.map(|folder| paths::root().join(folder));
    let usual = || Some(env::home_dir()?.join(".cargo"));
    given.or_else(usual).context("cargo's folder is not known: set CARGO_HOME, or HOME")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_folder_gets_a_name_that_is_the_same_everywhere() {
        let config: toml::Table = config("x86_64-unknown-none").unwrap().parse().unwrap();
        let flags = config["target"]["x86_64-unknown-none"]["rustflags"].as_array().unwrap();
        let flags: Vec<_> = flags.iter().map(|flag| flag.as_str().unwrap()).collect();
        assert_eq!(flags.len(), 3);
        assert!(flags.iter().all(|flag| flag.starts_with("--remap-path-prefix=/")), "{flags:?}");
        assert!(flags[0].ends_with(&format!("{}=.", paths::root().display())));
        assert!(flags[2].ends_with("/registry/src=/crates"));
    }
}
