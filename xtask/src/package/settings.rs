//! The settings in `grub/vidar.cfg`, with the comments that describe them.

use std::fs;

use anyhow::{Context, Result, ensure};

use crate::paths;

/// The file with the settings.
const SETTINGS: &str = "grub/vidar.cfg";

/// A setting.
#[derive(Debug, PartialEq, Eq)]
pub struct Setting {
    /// The variable's name.
    pub name: String,
    /// The value that the package comes with.
    pub default: String,
    /// What the comment before it says.
    pub text: String,
}

impl Setting {
    /// Returns all settings, in the order of the file.
    pub fn all() -> Result<Vec<Self>> {
        let text = fs::read_to_string(paths::root().join(SETTINGS));
        let settings = Self::read(&text.with_context(|| format!("cannot read {SETTINGS}"))?);
        ensure!(!settings.is_empty(), "{SETTINGS} has no line VIDAR_...= below a comment");
        Ok(settings)
    }

    /// Returns the settings of the text. The lines of comment right before a setting describe it.
    fn read(text: &str) -> Vec<Self> {
        let mut settings = Vec::new();
        let mut comment = Vec::new();
        for line in text.lines() {
            if let Some(line) = line.strip_prefix('#') {
                comment.push(line.trim());
                continue;
            }
            let assignment = line.split_once('=').filter(|(name, _)| name.starts_with("VIDAR_"));
            if let Some((name, default)) = assignment.filter(|_| !comment.is_empty()) {
                let (name, default, text) = (name.to_owned(), default.to_owned(), comment.join(" "));
                settings.push(Self { name, default, text });
            }
            comment.clear();
        }
        settings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_is_described_by_the_comment_before_it() {
        let text = "# The file.\n\n# One.\n# Two.\nVIDAR_A=\"\"\n\nVIDAR_B=x\nexport VIDAR_A\n# C.\nC=1\n";
        let setting = Setting { name: "VIDAR_A".into(), default: "\"\"".into(), text: "One. Two.".into() };
        assert_eq!(Setting::read(text), [setting]);
    }

    #[test]
    fn each_setting_of_the_generator_is_described() {
        let script = fs::read_to_string(paths::root().join(SETTINGS)).unwrap();
        let settings = Setting::all().unwrap();
        for (index, _) in script.match_indices("VIDAR_") {
            let name = script[index..].split(|c: char| !c.is_ascii_uppercase() && c != '_').next().unwrap();
            assert!(settings.iter().any(|setting| setting.name == name), "{name} is not described");
        }
    }
}
