//! `cargo xtask tidy`: checks the project's rules that no compiler checks. `cargo xtask test` runs it too.
//!
//! Each rule is a function over the text of one file, except for [`circles`], [`links`] and
//! [`pages`], which look at several files.

mod circles;
mod citations;
mod direction;
mod links;
mod modules;
mod pages;
mod paths;
mod prose;
mod repeats;
mod safety;
mod size;
mod source;
mod uses;
mod whitespace;
mod wording;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use self::modules::Crate;
use self::pages::Pages;
use self::source::Source;

/// A place that breaks a rule.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// The path of the file, relative to the root of the checkout.
    pub file: String,
    /// The number of the line, from 1.
    pub line: usize,
    /// The sentence that says what is wrong.
    pub sentence: String,
}

/// Checks the checkout and prints each finding on a line. Returns an error if there is any.
pub fn run() -> Result<()> {
    let (files, findings) = check(&crate::paths::root())?;
    for Finding { file, line, sentence } in &findings {
        println!("{file}:{line}: {sentence}");
    }
    match findings.len() {
        0 => println!("tidy: {files} files, no findings"),
        1 => bail!("tidy: {files} files, 1 finding"),
        more => bail!("tidy: {files} files, {more} findings"),
    }
    Ok(())
}

/// Checks all files below `root` that have rules. Returns the number of these files, and the findings.
fn check(root: &Path) -> Result<(usize, Vec<Finding>)> {
    let mut files = Vec::new();
    collect(root, "", &mut files)?;
    files.sort();
    let mut findings = Vec::new();
    let mut crates = BTreeMap::<_, Crate>::new();
    let mut pages = Pages::default();
    for file in &files {
        let text = fs::read_to_string(root.join(file)).with_context(|| format!("cannot read {file}"))?;
        findings.extend(check_file(file, &text));
        pages.add(file, &text);
        let broken = links::check(file, &text, |path| read(&root.join(path))).into_iter();
        findings.extend(broken.map(|(line, sentence)| Finding { file: file.clone(), line, sentence }));
        if let Some((folder, place)) = circles::place(file) {
            crates.entry(folder).or_default().add(file, place, &text);
        }
    }
    for files in crates.values() {
        let broken = circles::check(&files.graph()).into_iter();
        findings.extend(broken.map(|(file, line, sentence)| Finding { file, line, sentence }));
    }
    let unnamed = pages.check().into_iter();
    findings.extend(unnamed.map(|(file, (line, sentence))| Finding { file, line, sentence }));
    findings.sort();
    Ok((files.len(), findings))
}

/// Returns the text of what is at the path, or the empty text if that is no text. Returns `None` if nothing is there.
fn read(path: &Path) -> Option<String> {
    path.exists().then(|| fs::read_to_string(path).unwrap_or_default())
}

/// Applies all rules to one file.
fn check_file(file: &str, text: &str) -> Vec<Finding> {
    let mut broken = whitespace::check(text);
    broken.extend(paths::check(text));
    if file.ends_with(".md") {
        broken.extend(prose::check(text));
        broken.extend(repeats::check(text));
    }
    if file.ends_with(".rs") || file.ends_with(".S") {
        broken.extend(size::check(text));
        broken.extend(prose::check_comments(text));
        let source = Source::new(text);
        broken.extend(citations::check(&source));
        if file.ends_with(".rs") {
            broken.extend(safety::check(&source));
            broken.extend(wording::check(&source));
            broken.extend(direction::check(file, &source));
            if file.starts_with("hv/core/src/") {
                broken.extend(safety::check_core(&source));
            }
        }
    }
    let finding = |(line, sentence)| Finding { file: file.into(), line, sentence };
    broken.into_iter().map(finding).collect()
}

/// Adds the files below `folder` that have rules, as paths from `root`.
fn collect(root: &Path, folder: &str, files: &mut Vec<String>) -> Result<()> {
    let path = root.join(folder);
    for entry in fs::read_dir(&path).with_context(|| format!("cannot read {}", path.display()))? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        let file = if folder.is_empty() { name.clone() } else { format!("{folder}/{name}") };
        let kind = entry.file_type()?;
        if kind.is_dir() {
            // These folders belong to Cargo, to git, and to the guest.
            if !matches!(name.as_str(), "target" | ".git") && file != "iso/initramfs" {
                collect(root, &file, files)?;
            }
        } else if kind.is_file() && has_rules(&name) {
            files.push(file);
        }
    }
    Ok(())
}

fn has_rules(name: &str) -> bool {
    let extension = Path::new(name).extension().and_then(|extension| extension.to_str());
    matches!(extension, Some("rs" | "S" | "ld" | "toml" | "md" | "sh" | "in" | "cfg"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checkout_is_tidy() {
        let (files, findings) = check(&crate::paths::root()).unwrap();
        assert!(files > 20, "only {files} files were looked at");
        assert_eq!(findings, []);
    }

    #[test]
    fn every_rule_is_applied() {
        let bad =
            "//! A room.\n\nuse crate::vmx::Vmcs;\n\n// See the SDM.\nfn f() { \n    unsafe { g() };\n}\n";
        let sentences: Vec<_> =
            check_file("hv/core/src/vmm/bad.rs", bad).into_iter().map(|f| f.line).collect();
        let mut lines = sentences;
        lines.sort_unstable();
        assert_eq!(lines, [3, 5, 6, 7, 7], "direction, citation, white space, SAFETY and unsafe in the core");
        let long = format!("//! Long.\n{}", "//\n".repeat(500));
        assert_eq!(check_file("xtask/src/long.rs", &long).len(), 1);
        assert_eq!(check_file("README.md", &format!("see /{}/x\n", "tmp")).len(), 1);
        assert_eq!(check_file("README.md", &format!("{}\n", "a".repeat(121))).len(), 1);
        assert_eq!(check_file("README.md", "see the SDM\n"), []);
    }

    #[test]
    fn files_with_rules_are_found() {
        for name in ["main.rs", "entry.S", "hv.ld", "Cargo.toml", "README.md", "grub.cfg.in"] {
            assert!(has_rules(name), "{name}");
        }
        for name in ["Cargo.lock", "LICENSE-MIT", "vmlinuz"] {
            assert!(!has_rules(name), "{name}");
        }
    }
}
