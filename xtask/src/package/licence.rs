//! The licence of a crate: which ones the package makes use of, and whose copyright it is.

use std::fs;

use anyhow::{Context, Result, bail, ensure};

use super::linked::Crate;
use crate::paths;

/// The licences that the copyright file has the text of. Where a crate leaves the choice, these are taken.
const KNOWN: [&str; 3] = ["MIT", "Apache-2.0", "0BSD"];

/// What the copyright file says of a crate.
#[derive(Debug, PartialEq, Eq)]
pub struct Notice {
    /// The holders of the copyright.
    pub copyright: Vec<String>,
    /// The licences, in the terms of Debian's copyright format.
    pub license: String,
}

impl Notice {
    /// Reads the files of the crate. Its MIT licence has to be the usual text, which the copyright file has once.
    pub fn of(one: &Crate) -> Result<Self> {
        let name = one.full_name();
        let stated = one.license.as_deref().with_context(|| format!("the crate {name} states no licence"))?;
        let known = known(stated).with_context(|| format!("the crate {name} has the licence {stated}"))?;
        let texts = texts(one)?;
        ensure!(!texts.is_empty(), "the crate {name} contains no text of its licence ({stated})");
        let mit = texts.iter().find(|text| permission(text) == permission(&own_mit()));
        if known == ["MIT"] {
            ensure!(mit.is_some(), "the crate {name} has the licence MIT in words of its own: add these");
        }
        let mut copyright = mit.map_or_else(Vec::new, |text| holders(text));
        if copyright.is_empty() {
            copyright = one.authors.clone();
        }
        if copyright.is_empty() {
            copyright = vec![format!("the authors of {}", one.name)];
        }
        Ok(Self { copyright, license: known.join(" or ") })
    }
}

/// Returns the known ones among the licences that the user can choose from.
fn known(stated: &str) -> Result<Vec<&'static str>> {
    let choices: Vec<_> = stated.split(" OR ").flat_map(|part| part.split('/')).map(str::trim).collect();
    let known: Vec<_> = KNOWN.into_iter().filter(|known| choices.contains(known)).collect();
    if known.is_empty() {
        bail!("its text is not in the package: add it in xtask/src/package/copyright.rs");
    }
    Ok(known)
}

/// Returns the texts of the files with licences in the crate's folder.
fn texts(one: &Crate) -> Result<Vec<String>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(one.folder())? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_uppercase();
        if path.is_file() && ["LICENSE", "LICENCE", "COPYING"].iter().any(|start| name.starts_with(start)) {
            files.push(path);
        }
    }
    files.sort();
    files.iter().map(|file| Ok(String::from_utf8_lossy(&fs::read(file)?).into_owned())).collect()
}

/// Returns the text of Vidar's own licence MIT.
pub fn own_mit() -> String {
    fs::read_to_string(paths::root().join("LICENSE-MIT")).expect("the checkout has its licences")
}

/// Returns the text of the licence MIT from the permission on, with single spaces between words.
fn permission(text: &str) -> Option<String> {
    let from = text.find("Permission is hereby granted")?;
    Some(text[from..].split_whitespace().collect::<Vec<_>>().join(" "))
}

/// Returns the holders of the copyright that the text begins with.
fn holders(text: &str) -> Vec<String> {
    let lines = text.lines().map(str::trim).take_while(|line| !line.starts_with("Permission is"));
    let lines = lines.filter_map(|line| line.strip_prefix("Copyright"));
    lines.map(|line| line.trim().trim_start_matches("(c)").trim().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(license: Option<&str>, files: &[(&str, &str)]) -> (tempfile::TempDir, Crate) {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(folder.path().join(name), text).unwrap();
        }
        let made = Crate {
            name: "one".into(),
            version: "1.0.0".into(),
            license: license.map(str::to_owned),
            authors: vec!["A. Author".into()],
            manifest_path: folder.path().join("Cargo.toml"),
            source: Some("registry".into()),
        };
        (folder, made)
    }

    #[test]
    fn the_holders_are_those_of_the_licence() {
        let text = own_mit().replace("2026 The Vidar developers", "2014 The Others");
        let (_folder, one) =
            one(Some("MIT/Apache-2.0"), &[("LICENSE-MIT", &text), ("LICENSE-APACHE", "Apache")]);
        let notice = Notice::of(&one).unwrap();
        assert_eq!(notice.license, "MIT or Apache-2.0");
        assert_eq!(notice.copyright, ["2014 The Others"]);
    }

    #[test]
    fn the_authors_hold_the_copyright_where_the_licence_names_nobody() {
        let text = own_mit().replace("Copyright (c) 2026 The Vidar developers", "");
        let (_folder, one) = one(Some("Zlib OR MIT"), &[("license", &text)]);
        assert_eq!(
            Notice::of(&one).unwrap(),
            Notice { copyright: vec!["A. Author".into()], license: "MIT".into() }
        );
    }

    #[test]
    fn a_crate_whose_licence_cannot_be_given_is_refused() {
        let mit = own_mit();
        for (license, files, sentence) in [
            (None, vec![("LICENSE", mit.as_str())], "states no licence"),
            (Some("MIT"), vec![], "contains no text of its licence"),
            (Some("MIT"), vec![("LICENSE", "Do what you want.")], "in words of its own"),
            (Some("GPL-2.0-only"), vec![("LICENSE", "GPL")], "its text is not in the package"),
            (Some("MIT AND Zlib"), vec![("LICENSE", mit.as_str())], "its text is not in the package"),
        ] {
            let (_folder, one) = one(license, &files);
            let error = format!("{:#}", Notice::of(&one).unwrap_err());
            assert!(error.contains(sentence) && error.contains("one-1.0.0"), "{error}");
        }
    }
}
