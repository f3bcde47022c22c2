//! Checks that each file of the hypervisor is named in the page of its room: the documentation of the module that the
//! file is in. A reader who opens a room finds there what each of its files is for.

use std::collections::BTreeMap;

use super::source::Violation;

/// The `src` folders of the crates whose rooms have pages.
const CRATES: [&str; 2] = ["hv/core/src", "hv/src"];

/// The files of these crates. Each has the documentation at its beginning.
#[derive(Default)]
pub struct Pages(BTreeMap<String, String>);

impl Pages {
    /// Adds a file of the checkout, if its crate has pages.
    pub fn add(&mut self, file: &str, text: &str) {
        if CRATES.iter().any(|folder| file.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'))) {
            let lines = text.lines().filter_map(|line| line.strip_prefix("//!"));
            self.0.insert(file.into(), lines.collect::<Vec<_>>().join("\n"));
        }
    }

    /// Checks all files that were added. Returns each file that its page does not name.
    pub fn check(&self) -> Vec<(String, Violation)> {
        self.0.keys().filter_map(|file| Some((file.clone(), (1, self.missing(file)?)))).collect()
    }

    /// Returns the sentence about a file that its page does not name.
    fn missing(&self, file: &str) -> Option<String> {
        let (folder, name) = named_as(file)?;
        let page = ["/lib.rs", "/mod.rs", ".rs"].map(|end| format!("{folder}{end}"));
        let page = page.into_iter().find(|page| self.0.contains_key(page));
        let Some(page) = page else {
            return Some(format!("the folder {folder} has no page: add {folder}/mod.rs"));
        };
        let quoted = format!("`{name}`");
        (!self.0[&page].contains(&quoted))
            .then(|| format!("{page} does not name this file: add a row with {quoted} to its table"))
    }
}

/// Returns the folder whose page has to name the file, and the name that it has there: that of the module, or that of
/// the file if it is no Rust. Returns `None` for the root of a crate.
fn named_as(file: &str) -> Option<(&str, &str)> {
    let module = file.strip_suffix("/mod.rs").unwrap_or(file);
    let (folder, name) = module.rsplit_once('/')?;
    let name = name.strip_suffix(".rs").unwrap_or(name);
    (name != "lib").then_some((folder, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(files: &[(&str, &str)]) -> Vec<String> {
        let mut pages = Pages::default();
        for (file, text) in files {
            pages.add(file, text);
        }
        pages.check().into_iter().map(|(file, (_, sentence))| format!("{file}: {sentence}")).collect()
    }

    #[test]
    fn files_that_their_pages_name_are_not_reported() {
        let files = [
            ("hv/src/lib.rs", "//! The shell.\n//! [`boot`] and [`main`](self)"),
            ("hv/src/main.rs", "//! The image."),
            (
                "hv/src/boot/mod.rs",
                "//! | [`order`] | the order |\n//! | `header.S` | the header |\n//! [`msr`]",
            ),
            ("hv/src/boot/order.rs", "//! The order."),
            ("hv/src/boot/header.S", "# The header."),
            ("hv/src/boot/msr.rs", "//! MSRs: [`mtrr`]"),
            ("hv/src/boot/msr/mtrr.rs", "//! The MTRRs."),
            ("xtask/src/lib.rs", "//! Not a room."),
            ("xtask/src/build.rs", "//! Not in a room."),
        ];
        assert_eq!(findings(&files), [""; 0]);
    }

    #[test]
    fn files_that_no_page_names_are_reported() {
        let files = [
            ("hv/core/src/lib.rs", "//! The core.\n\n// `mem`"),
            ("hv/core/src/mem/mod.rs", "//! Memory, with `frame` and `map.rs`."),
            ("hv/core/src/mem/frames.rs", "//! Frames."),
            ("hv/core/src/pci/bus.rs", "//! A bus."),
        ];
        assert_eq!(
            findings(&files),
            [
                "hv/core/src/mem/frames.rs: hv/core/src/mem/mod.rs does not name this file: add a row with `frames` to its table",
                "hv/core/src/mem/mod.rs: hv/core/src/lib.rs does not name this file: add a row with `mem` to its table",
                "hv/core/src/pci/bus.rs: the folder hv/core/src/pci has no page: add hv/core/src/pci/mod.rs",
            ]
        );
    }
}
