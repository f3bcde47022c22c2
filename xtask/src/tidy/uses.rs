//! What a Rust file names: the paths in its code, its imports, and the items that it defines.
//!
//! This is no compiler: it reads tokens, which is enough for code that compiles.

use std::collections::BTreeSet;

use super::source::{Source, is_word};

/// A path as it is written, such as `crate::mem::addr::Hpa`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Path {
    /// The number of the line of its last part, from 1.
    pub line: usize,
    /// The parts of the path. In an import of everything in a module, the last part is `*`.
    pub parts: Vec<String>,
    /// The inline modules around it, the outermost first.
    pub inside: Vec<String>,
}

/// An import: `use path`, or `use path as name`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Import {
    /// What is imported.
    pub path: Path,
    /// The name that it gets in this file. It is `*` if everything in a module is imported.
    pub name: String,
    /// True for `pub use` and for `pub(...) use`.
    pub exported: bool,
}

/// The names in a file.
#[derive(Debug, Default)]
pub struct Uses {
    /// The imports, including those in functions and in inline modules.
    pub imports: Vec<Import>,
    /// The paths of at least two parts in the rest of its code.
    pub paths: Vec<Path>,
    /// The single words of the rest of its code, each with the line where it occurs first. Fields and methods after
    /// a dot are left out.
    pub words: Vec<(String, usize)>,
    /// The names of its functions, types, traits, constants, statics and macros.
    pub definitions: BTreeSet<String>,
}

/// The keywords that are followed by the name of an item.
const ITEMS: [&str; 9] = ["fn", "struct", "enum", "union", "trait", "type", "const", "static", "macro_rules"];

/// Which code is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// All of it.
    All,
    /// All but the items with `#[cfg(test)]`.
    WithoutTests,
}

#[derive(Debug, Clone, Copy)]
struct Token<'a> {
    text: &'a str,
    line: usize,
}

impl Uses {
    /// Reads the names in the file.
    pub fn new(source: &Source, scope: Scope) -> Self {
        let mut tokens = tokens(source);
        if scope == Scope::WithoutTests {
            tokens = without_tests(&tokens);
        }
        let mut reader =
            Reader { tokens: &tokens, at: 0, depth: 0, inside: Vec::new(), uses: Self::default() };
        reader.read();
        reader.uses
    }

    /// Returns all paths, those of the imports included.
    pub fn all_paths(&self) -> impl Iterator<Item = &Path> {
        self.imports.iter().map(|import| &import.path).chain(&self.paths)
    }
}

/// Returns the tokens of the code: the words, each `::`, and every other character that is not white space.
fn tokens(source: &Source) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    for (index, line) in source.lines.iter().enumerate() {
        let mut rest = line.code.trim_start();
        while let Some(first) = rest.chars().next() {
            let length = match first {
                _ if is_word(first) => rest.find(|character| !is_word(character)).unwrap_or(rest.len()),
                ':' if rest.starts_with("::") => 2,
                _ => first.len_utf8(),
            };
            tokens.push(Token { text: &rest[..length], line: index + 1 });
            rest = rest[length..].trim_start();
        }
    }
    tokens
}

/// Removes each item after `#[cfg(test)]`.
fn without_tests<'a>(tokens: &[Token<'a>]) -> Vec<Token<'a>> {
    const ATTRIBUTE: [&str; 7] = ["#", "[", "cfg", "(", "test", ")", "]"];
    let mut kept = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let is_test = tokens[at..].iter().map(|token| token.text).take(ATTRIBUTE.len()).eq(ATTRIBUTE);
        if is_test {
            at = end_of_item(tokens, at + ATTRIBUTE.len());
        } else {
            kept.push(tokens[at]);
            at += 1;
        }
    }
    kept
}

/// Returns the position after the item that begins at `at`. It ends with a semicolon, or with the braces of its body.
fn end_of_item(tokens: &[Token], mut at: usize) -> usize {
    let mut depth = 0_usize;
    let is_import =
        tokens[at..].iter().take_while(|token| token.text != "{").any(|token| token.text == "use");
    while let Some(token) = tokens.get(at) {
        at += 1;
        match token.text {
            "{" | "(" | "[" => depth += 1,
            "}" | ")" | "]" => {
                depth = depth.saturating_sub(1);
                if depth == 0 && token.text == "}" && !is_import {
                    break;
                }
            }
            ";" if depth == 0 => break,
            _ => {}
        }
    }
    at
}

struct Reader<'a> {
    tokens: &'a [Token<'a>],
    at: usize,
    depth: usize,
    /// The inline modules around this position, each with the depth of braces outside of it.
    inside: Vec<(String, usize)>,
    uses: Uses,
}

impl<'a> Reader<'a> {
    fn text(&self, at: usize) -> &'a str {
        self.tokens.get(at).map_or("", |token| token.text)
    }

    fn read(&mut self) {
        while self.at < self.tokens.len() {
            let text = self.text(self.at);
            match text {
                "{" => self.depth += 1,
                "}" => {
                    self.depth = self.depth.saturating_sub(1);
                    self.inside.pop_if(|(_, outside)| *outside == self.depth);
                }
                "use" => {
                    self.import();
                    continue;
                }
                "mod" => {
                    if self.text(self.at + 2) == "{" {
                        self.inside.push((self.text(self.at + 1).to_owned(), self.depth));
                    }
                    self.at += 2;
                    continue;
                }
                _ if text.starts_with(is_word) => {
                    self.path();
                    continue;
                }
                _ => {}
            }
            self.at += 1;
        }
    }

    /// Makes a path whose last part is the token at `at`.
    fn finish(&self, parts: Vec<String>, at: usize) -> Path {
        let inside = self.inside.iter().map(|(name, _)| name.clone()).collect();
        Path { line: self.tokens[at].line, parts, inside }
    }

    /// Reads a path or a single word in code.
    fn path(&mut self) {
        let (start, before) = (self.at, self.at.checked_sub(1).map_or("", |before| self.text(before)));
        let mut parts = vec![self.text(self.at).to_owned()];
        while self.text(self.at + 1) == "::" && self.text(self.at + 2).starts_with(is_word) {
            self.at += 2;
            parts.push(self.text(self.at).to_owned());
        }
        if ITEMS.contains(&parts[0].as_str()) {
            let name = self.at + if self.text(self.at + 1) == "!" { 2 } else { 1 };
            self.uses.definitions.insert(self.text(name).to_owned());
        } else if parts.len() > 1 {
            let path = self.finish(parts, self.at);
            self.uses.paths.push(path);
        } else if before != "." && !self.uses.words.iter().any(|(word, _)| *word == parts[0]) {
            self.uses.words.push((parts.remove(0), self.tokens[start].line));
        }
        self.at += 1;
    }

    /// Reads an import, from `use` to before its semicolon.
    fn import(&mut self) {
        let before = self.at.checked_sub(1).map_or("", |before| self.text(before));
        let exported = before == "pub" || before == ")";
        self.at += 1;
        self.tree(&mut Vec::new(), exported);
    }

    /// Reads an import tree, up to the comma, the closing brace or the semicolon after it.
    fn tree(&mut self, path: &mut Vec<String>, exported: bool) {
        let length = path.len();
        loop {
            let (text, at) = (self.text(self.at), self.at);
            self.at += 1;
            match text {
                "" => break,
                "::" => {}
                "{" => {
                    while !matches!(self.text(self.at), "}" | "") {
                        self.tree(path, exported);
                        if self.text(self.at) == "," {
                            self.at += 1;
                        }
                    }
                    self.at += 1;
                    break;
                }
                _ => {
                    if text != "self" || path.is_empty() {
                        path.push(text.to_owned());
                    }
                    if self.text(self.at) != "::" {
                        let mut name = path.last().cloned().unwrap_or_default();
                        if self.text(self.at) == "as" {
                            name = self.text(self.at + 1).to_owned();
                            self.at += 2;
                        }
                        let path = self.finish(path.clone(), at);
                        self.uses.imports.push(Import { path, name, exported });
                        break;
                    }
                }
            }
        }
        path.truncate(length);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uses(text: &str, scope: Scope) -> Uses {
        Uses::new(&Source::new(text), scope)
    }

    fn paths(uses: &Uses) -> Vec<(usize, String)> {
        uses.all_paths().map(|path| (path.line, path.parts.join("::"))).collect()
    }

    #[test]
    fn an_import_tree_is_read_to_its_leaves() {
        let uses = uses("pub(crate) use crate::{\n    a,\n    b::{self, c as d, e::*},\n};\n", Scope::All);
        let imports: Vec<_> = uses
            .imports
            .iter()
            .map(|import| (import.path.line, import.path.parts.join("::"), import.name.as_str()))
            .collect();
        assert_eq!(
            imports,
            [
                (2, "crate::a".into(), "a"),
                (3, "crate::b".into(), "b"),
                (3, "crate::b::c".into(), "d"),
                (3, "crate::b::e::*".into(), "*"),
            ]
        );
        assert!(uses.imports.iter().all(|import| import.exported));
        assert!(!self::uses("use self::a::B;", Scope::All).imports[0].exported);
    }

    #[test]
    fn paths_are_found_in_code_but_not_in_comments_and_strings() {
        let text = "// crate::a\nfn f() { crate::b::<T>(\"crate::c\"); $crate::d!() }\nlet x: super::E = y;";
        let uses = uses(text, Scope::All);
        assert_eq!(paths(&uses), [(2, "crate::b".into()), (2, "crate::d".into()), (3, "super::E".into())]);
        assert!(uses.definitions.contains("f"));
    }

    #[test]
    fn a_path_knows_the_inline_modules_around_it() {
        let text = "mod a { mod b { use super::C; } fn f() { g::h() } }\nuse crate::i;";
        let inside: Vec<_> = uses(text, Scope::All).all_paths().map(|path| path.inside.join("::")).collect();
        assert_eq!(inside, ["a::b", "", "a"]);
    }

    #[test]
    fn tests_can_be_left_out() {
        let text = "use a::b;\n#[cfg(test)]\nuse c::{d, e};\n#[cfg(test)]\n#[derive(X)]\nstruct Y { z: f::g }\n\
                    #[cfg(test)]\nmod tests { fn h() { i::j() } }\nuse k::l;";
        let lines = |scope| paths(&uses(text, scope)).into_iter().map(|(line, _)| line).collect::<Vec<_>>();
        assert_eq!(lines(Scope::WithoutTests), [1, 9]);
        assert_eq!(lines(Scope::All), [1, 3, 3, 9, 6, 8]);
    }

    #[test]
    fn words_are_noted_but_not_fields() {
        let uses = uses("fn f() {\n    Exit::new(exit.reason);\n    Exit { kind }\n}", Scope::All);
        assert!(uses.words.contains(&("Exit".into(), 3)));
        assert!(!uses.words.iter().any(|(word, _)| word == "reason"));
    }
}
