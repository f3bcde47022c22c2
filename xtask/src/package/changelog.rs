//! The changelog in Debian's form (Debian Policy 4.4 "Debian changelog"), from the one of the project.

use std::fs;

use anyhow::{Context, Result, ensure};

use super::date;
use super::version::Version;
use crate::paths;

/// Who answers for the package, in `control` and in the changelog.
pub const MAINTAINER: &str = "The Vidar developers <vidar@vidar.invalid>";

/// The project's changelog.
const CHANGELOG: &str = "hv/CHANGELOG.md";
/// The width of a line.
const WIDTH: usize = 79;

/// Returns the changelog of a package of this version, whose source has this date.
pub fn debian(version: &Version, date: u64) -> Result<String> {
    let text = fs::read_to_string(paths::root().join(CHANGELOG));
    let text = text.with_context(|| format!("cannot read {CHANGELOG}"))?;
    let changes = changes(&text);
    ensure!(!changes.is_empty(), "{CHANGELOG} has no changes below a heading with a version");
    let date = date::formatted(date, "+%a, %d %b %Y %T %z")?;
    Ok(format!("vidar ({version}) unstable; urgency=medium\n\n{changes}\n -- {MAINTAINER}  {date}\n"))
}

/// Returns the changes of the newest version, indented and wrapped as Debian wants it. A heading becomes a line in
/// brackets.
fn changes(markdown: &str) -> String {
    let is_version = |heading: &str| heading.starts_with(|c: char| c.is_ascii_digit());
    let lines = markdown.lines().skip_while(|line| !line.strip_prefix("## ").is_some_and(is_version));
    let lines = lines.skip(1).take_while(|line| !line.starts_with("## "));
    let mut items: Vec<String> = Vec::new();
    for line in lines.map(str::trim).filter(|line| !line.is_empty()) {
        match (line.strip_prefix("### "), items.last_mut()) {
            (Some(heading), _) => items.push(format!("[ {heading} ]")),
            (None, Some(item)) if !line.starts_with("* ") => *item += &format!(" {line}"),
            (None, _) => items.push(line.to_owned()),
        }
    }
    let wrapped = items.iter().map(|item| {
        let options = textwrap::Options::new(WIDTH).initial_indent("  ").subsequent_indent("    ");
        textwrap::fill(item, options) + "\n"
    });
    wrapped.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARKDOWN: &str = "# Changelog\n\nText.\n\n## 0.2.0, soon\n\n### Tools\n* One thing on\n  two lines.\n\
        * Another.\n\n## 0.1.0\n* Older.\n\n## The ABI\n* Not a version.\n";

    #[test]
    fn the_newest_versions_changes_are_taken() {
        let expected = "  [ Tools ]\n  * One thing on two lines.\n  * Another.\n";
        assert_eq!(changes(MARKDOWN), expected);
        assert_eq!(changes("# Changelog\n\n## The ABI\n* Not a version.\n"), "");
    }

    #[test]
    fn the_projects_changelog_becomes_debians() {
        let text = debian(&Version::new(Some("0.2.0")).unwrap(), 0).unwrap();
        assert!(
            text.starts_with("vidar (0.2.0) unstable; urgency=medium\n\n  [ The machine and its guest ]\n")
        );
        assert!(text.ends_with("  Thu, 01 Jan 1970 00:00:00 +0000\n"), "{text}");
        assert!(!text.contains("hypercall ABI\n"), "only versions of the package are listed");
        assert!(text.lines().all(|line| line.len() <= WIDTH), "{text}");
    }
}
