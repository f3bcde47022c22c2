//! The package's version.

use std::fmt;

use anyhow::{Result, ensure};

/// A version that dpkg accepts (Debian Policy 5.6.12 "Version") and that can be a part of a file's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version(String);

impl Version {
    /// Returns `asked`, or the workspace's version without it.
    pub fn new(asked: Option<&str>) -> Result<Self> {
        let text = asked.unwrap_or(env!("CARGO_PKG_VERSION"));
        let good = |c: char| c.is_ascii_alphanumeric() || ".+~".contains(c);
        ensure!(
            text.starts_with(|c: char| c.is_ascii_digit()) && text.chars().all(good),
            "\"{text}\" cannot be the package's version: begin with a digit, and use only letters, digits, and the \
             characters . + ~"
        );
        Ok(Self(text.to_owned()))
    }

    /// Returns the version's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_workspaces_version_is_the_default() {
        assert_eq!(Version::new(None).unwrap().as_str(), env!("CARGO_PKG_VERSION"));
        assert_eq!(Version::new(Some("0.2.0~rc1")).unwrap().to_string(), "0.2.0~rc1");
    }

    #[test]
    fn what_dpkg_or_a_files_name_cannot_hold_is_refused() {
        // A hyphen would make a Debian revision of what follows, and the package's format would be another one.
        for bad in ["", "v1", "~1", "1/2", "1 2", "1:2", "1-2", "1_2", "1é"] {
            assert!(Version::new(Some(bad)).is_err(), "{bad}");
        }
    }
}
