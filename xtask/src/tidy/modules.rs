//! The files of a crate, and which of them uses which.
//!
//! File A uses file B if code of A names something that B defines: by an import, or by a path that begins with `crate`,
//! `self`, `super`, a child module or an imported module. These do not count:
//!
//! * The declaration or the import of a module. Only a use of its items counts.
//! * A re-export by `pub use`, unless the file names the item in its own code. A file that reaches an item by a
//!   re-export uses the file that defines the item, and not the one that re-exports it.
//! * Names in code under `#[cfg(test)]`: tests may use all files.

use std::collections::BTreeMap;

use super::source::Source;
use super::uses::{Path, Scope, Uses};

/// The path of a module in its crate, without `crate`.
type Module = Vec<String>;

/// The largest number of re-exports that a name is followed through.
const MOST_REEXPORTS: usize = 8;

/// The files of a crate.
#[derive(Default)]
pub struct Crate {
    files: BTreeMap<Module, File>,
}

struct File {
    name: String,
    uses: Uses,
}

/// The uses among the files of a crate: for each file the files that it uses, each with the first line that uses it.
pub type Graph = BTreeMap<String, BTreeMap<String, usize>>;

impl Crate {
    /// Adds a file. `name` is its path from the root of the checkout, and `place` is its path in the `src` folder.
    pub fn add(&mut self, name: &str, place: &str, text: &str) {
        let uses = Uses::new(&Source::new(text), Scope::WithoutTests);
        self.files.insert(module(place), File { name: name.to_owned(), uses });
    }

    /// Returns the uses among the files.
    pub fn graph(&self) -> Graph {
        let mut graph = Graph::new();
        for (module, file) in &self.files {
            let uses = graph.entry(file.name.clone()).or_default();
            for (target, line) in self.targets(module, &file.uses) {
                let target = &self.files[&target].name;
                if *target != file.name {
                    let first = uses.entry(target.clone()).or_insert(line);
                    *first = line.min(*first);
                }
            }
        }
        graph
    }

    /// Returns the modules whose files the file of `module` uses, each with a line.
    fn targets(&self, module: &Module, uses: &Uses) -> Vec<(Module, usize)> {
        let mut targets = Vec::new();
        for import in &uses.imports {
            let Some(path) = self.absolute(module, uses, &import.path) else { continue };
            if !import.exported {
                targets.extend(self.definer(&path, 0).map(|target| (target, import.path.line)));
                continue;
            }
            for (word, line) in &uses.words {
                if import.name == *word {
                    targets.extend(self.definer(&path, 0).map(|target| (target, *line)));
                } else if import.name == "*" {
                    let named = self.item_of(&path[..path.len() - 1], word, 0);
                    targets.extend(named.map(|target| (target, *line)));
                }
            }
        }
        for path in &uses.paths {
            let target = self.absolute(module, uses, path).and_then(|path| self.definer(&path, 0));
            targets.extend(target.map(|target| (target, path.line)));
        }
        targets
    }

    /// Returns the path from the root of the crate. Returns `None` for a path into another crate, and for one that
    /// begins with a type.
    fn absolute(&self, module: &Module, uses: &Uses, path: &Path) -> Option<Vec<String>> {
        let mut base: Vec<String> = module.iter().chain(&path.inside).cloned().collect();
        let mut parts = path.parts.iter().peekable();
        match parts.peek()?.as_str() {
            "crate" => {
                parts.next();
                base.clear();
            }
            "self" => {
                parts.next();
            }
            "super" => {}
            name => {
                let child: Vec<_> = base.iter().cloned().chain([name.to_owned()]).collect();
                if !self.files.contains_key(&child) {
                    let import = uses.imports.iter().find(|import| {
                        import.name == name && import.path != *path && import.path.parts[0] != name
                    })?;
                    base = self.absolute(module, uses, &import.path)?;
                    parts.next();
                }
            }
        }
        while parts.next_if(|part| *part == "super").is_some() {
            base.pop()?;
        }
        base.extend(parts.cloned());
        Some(base)
    }

    /// Returns the module whose file defines the item of this path. Returns `None` if the path is that of a module.
    fn definer(&self, path: &[String], depth: usize) -> Option<Module> {
        let length = (0..=path.len()).rev().find(|length| self.files.contains_key(&path[..*length]))?;
        let (module, rest) = path.split_at(length);
        let item = rest.first()?;
        Some(self.item_of(module, item, depth).unwrap_or_else(|| module.to_vec()))
    }

    /// Returns the module whose file defines `item`, which `module` defines or imports. Returns `None` if it does
    /// neither.
    fn item_of(&self, module: &[String], item: &str, depth: usize) -> Option<Module> {
        let uses = &self.files.get(module)?.uses;
        if uses.definitions.contains(item) || depth == MOST_REEXPORTS {
            return Some(module.to_vec());
        }
        let imports = uses.imports.iter().filter(|import| import.path.inside.is_empty());
        imports
            .filter_map(|import| {
                let path = self.absolute(&module.to_vec(), uses, &import.path)?;
                match import.name.as_str() {
                    "*" => self.item_of(&path[..path.len() - 1], item, depth + 1),
                    name if name == item => self.definer(&path, depth + 1),
                    _ => None,
                }
            })
            .next()
    }
}

/// Returns the module of a file, by its path in the `src` folder.
fn module(place: &str) -> Module {
    let place = place.strip_suffix(".rs").unwrap_or(place);
    let mut module: Module = place.split('/').map(String::from).collect();
    let is_root = module.len() == 1 && matches!(place, "lib" | "main");
    if is_root || module.last().is_some_and(|last| last == "mod") {
        module.pop();
    }
    module
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the uses among these files, which are given as `(place, text)`. Each use has the form `user:line used`.
    fn edges(files: &[(&str, &str)]) -> Vec<String> {
        let mut all = Crate::default();
        for (place, text) in files {
            all.add(place, place, text);
        }
        let graph = all.graph();
        let edges = graph
            .iter()
            .flat_map(|(from, uses)| uses.iter().map(move |(to, line)| format!("{from}:{line} {to}")));
        edges.collect()
    }

    #[test]
    fn the_path_of_a_file_gives_its_module() {
        assert_eq!(module("main.rs"), [""; 0]);
        assert_eq!(module("lib.rs"), [""; 0]);
        assert_eq!(module("a.rs"), ["a"]);
        assert_eq!(module("a/mod.rs"), ["a"]);
        assert_eq!(module("a/b/c.rs"), ["a", "b", "c"]);
    }

    #[test]
    fn paths_of_every_kind_lead_to_files() {
        let files = [
            ("main.rs", "mod a;\nmod b;\nfn main() { a::f() }"),
            ("a/mod.rs", "mod c;\nuse self::c::D;\npub fn f() {}"),
            ("a/c.rs", "use super::super::b::E;\npub struct D(crate::b::F);"),
            ("b.rs", "mod inner {\n    fn g() { super::super::a::f() }\n}\npub struct E;\npub struct F;"),
        ];
        assert_eq!(
            edges(&files),
            ["a/c.rs:1 b.rs", "a/mod.rs:2 a/c.rs", "b.rs:2 a/mod.rs", "main.rs:3 a/mod.rs"]
        );
    }

    #[test]
    fn an_imported_module_is_used_by_what_is_named_in_it() {
        let files = [
            ("lib.rs", "mod a;\nmod b;"),
            ("a.rs", "use crate::{b, b::c};\n\nfn f() { c::g() }"),
            ("b/mod.rs", "pub mod c;\npub fn h() {}"),
            ("b/c.rs", "pub fn g() {}"),
        ];
        assert_eq!(edges(&files), ["a.rs:3 b/c.rs"]);
    }

    #[test]
    fn a_reexport_leads_to_the_file_that_defines_the_item() {
        let files = [
            ("a/mod.rs", "mod b;\nmod c;\npub use b::B;\npub use c::*;"),
            ("a/b.rs", "use super::C;\npub struct B;"),
            ("a/c.rs", "pub struct C;"),
            ("d.rs", "use crate::a::{B, C};"),
        ];
        assert_eq!(edges(&files), ["a/b.rs:1 a/c.rs", "d.rs:1 a/b.rs", "d.rs:1 a/c.rs"]);
    }

    #[test]
    fn a_file_that_names_what_it_reexports_uses_it() {
        let files = [
            ("a/mod.rs", "mod b;\nmod c;\npub use b::B;\npub use c::*;\nfn f(b: B) {}\nfn g(c: C) {}"),
            ("a/b.rs", "pub struct B;"),
            ("a/c.rs", "pub struct C;"),
        ];
        assert_eq!(edges(&files), ["a/mod.rs:5 a/b.rs", "a/mod.rs:6 a/c.rs"]);
    }

    #[test]
    fn tests_and_other_crates_do_not_count() {
        let files = [
            ("a.rs", "use std::b::C;\nuse b::D;\n#[cfg(test)]\nmod tests {\n    use crate::b::E;\n}"),
            ("b.rs", "fn f() { Self::g(); E::h() }"),
        ];
        assert_eq!(edges(&files), [""; 0]);
    }
}
