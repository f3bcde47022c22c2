//! The copyright file, in the format that programs can read
//! (<https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/>).
//!
//! Both programs of the package are static. So it has the licences of all that is linked into them.

use std::collections::BTreeMap;
use std::fmt::Write;

use anyhow::{Context, Result, ensure};

use super::licence::{Notice, own_mit};
use super::linked;
use crate::paths::{BARE_TARGET, GUEST_TARGET};

/// The programs: the cargo package, its target, and the path in the package.
const PROGRAMS: [(&str, &str, &str); 2] =
    [("hv", BARE_TARGET, "/boot/vidar.elf"), ("vidarctl", GUEST_TARGET, "/usr/bin/vidarctl")];

const HEAD: &str = "\
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: Vidar
Comment: The programs are static. The paragraphs below name Vidar's own files and
 all that is linked into the programs. The folders are those of the sources.

Files: *
Copyright: 2026 The Vidar developers
License: MIT or Apache-2.0
";

/// What is linked into the programs and is no crate that cargo lists.
const OTHERS: &str = "
Files: crates/noto-sans-mono-bitmap-*/src/res_rasterized_characters/*
Copyright: 2022 The Noto Project Authors (https://github.com/notofonts/latin-greek-cyrillic)
License: OFL-1.1
Comment: Pictures of letters of the font Noto Sans Mono, in /boot/vidar.elf.

Files: rust/library/*
Copyright: The Rust Project Developers
License: MIT or Apache-2.0
Comment: Rust's core library, in /boot/vidar.elf and /usr/bin/vidarctl, and its
 standard library with the crates that this contains, in /usr/bin/vidarctl.

Files: rust/library/compiler-builtins/* llvm/libunwind/*
Copyright: The LLVM Project's contributors
License: Apache-2.0-with-LLVM-exception
Comment: Linked into the programs by the Rust compiler.

Files: musl/*
Copyright: 2005-2020 Rich Felker, et al.
License: MIT
Comment: The C library in /usr/bin/vidarctl.
";

const APACHE: &str =
    "On Debian systems the text of the Apache License 2.0 is in\n/usr/share/common-licenses/Apache-2.0.";

/// Returns the copyright file.
pub fn copyright() -> Result<String> {
    let mut text = HEAD.to_owned();
    text += &crates()?;
    text += OTHERS;
    let mit = own_mit();
    let (_, permission) = mit.split_once("developers\n").context("LICENSE-MIT has no line of copyright")?;
    let exception = format!("{APACHE}\n\n{}", include_str!("licences/LLVM-exception").trim_end());
    for (name, words) in [
        ("MIT", permission.trim()),
        ("Apache-2.0", APACHE),
        ("Apache-2.0-with-LLVM-exception", &exception),
        ("0BSD", include_str!("licences/0BSD").trim_end()),
        ("OFL-1.1", include_str!("licences/OFL-1.1").trim_end()),
    ] {
        writeln!(text, "\nLicense: {name}\n{}", indented(words))?;
    }
    Ok(text)
}

/// Returns the paragraphs about crates.
fn crates() -> Result<String> {
    let all = linked::all()?;
    let mut programs_of = BTreeMap::new();
    for (package, target, path) in PROGRAMS {
        let linked = linked::into(package, target, &all)?;
        ensure!(!linked.is_empty(), "cargo lists no crates that are linked into {package}");
        for one in linked {
            programs_of.entry(one.full_name()).or_insert((one, Vec::new())).1.push(path);
        }
    }
    let mut text = String::new();
    for (name, (one, programs)) in programs_of {
        let Notice { copyright, license } = Notice::of(&one)?;
        write!(text, "\nFiles: crates/{name}/*\nCopyright: {}\n", copyright.join("\n "))?;
        writeln!(text, "License: {license}\nComment: Linked into {}.", programs.join(" and "))?;
    }
    Ok(text)
}

/// Returns the text as the format wants it: with a space before each line, and a dot on empty lines.
fn indented(text: &str) -> String {
    let lines =
        text.lines().map(|line| if line.trim().is_empty() { " .".into() } else { format!(" {line}") });
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_licence_that_is_named_has_a_text() {
        let text = copyright().unwrap();
        let paragraphs: Vec<_> = text.split("\n\n").collect();
        let (files, texts): (Vec<&str>, Vec<&str>) =
            paragraphs.iter().skip(1).partition(|paragraph| paragraph.starts_with("Files: "));
        assert!(files.len() > 15 && texts.iter().all(|text| text.starts_with("License: ")), "{text}");
        for paragraph in files {
            let (_, named) = paragraph.split_once("\nLicense: ").unwrap();
            for name in named.lines().next().unwrap().split(" or ") {
                assert!(texts.iter().any(|text| text.starts_with(&format!("License: {name}\n "))), "{name}");
            }
        }
    }

    #[test]
    fn the_crates_of_both_programs_are_named() {
        let text = copyright().unwrap();
        for (name, program) in [("multiboot2-", "/boot/vidar.elf"), ("libc-", "/usr/bin/vidarctl")] {
            let (_, paragraph) = text.split_once(&format!("\nFiles: crates/{name}")).unwrap();
            let paragraph = paragraph.split("\n\n").next().unwrap();
            assert!(paragraph.contains("\nCopyright: ") && paragraph.contains(program), "{paragraph}");
        }
    }

    #[test]
    fn texts_are_indented() {
        assert_eq!(indented("a\n\nb"), " a\n .\n b");
    }
}
