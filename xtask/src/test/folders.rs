//! The folders of the tests in machines.

use std::path::PathBuf;

use anyhow::Result;

use crate::paths;

/// Returns the folder of the test `name`.
pub fn folder(name: &str) -> PathBuf {
    paths::machines().join(format!("test-{name}"))
}

/// Makes an empty folder for the test `name`.
pub fn test_dir(name: &str) -> Result<PathBuf> {
    let dir = folder(name);
    if dir.exists() {
        std::fs::remove_dir_all(&dir)?;
    }
    paths::ensure(dir)
}
