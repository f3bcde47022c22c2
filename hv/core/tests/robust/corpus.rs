//! The corpus: valid inputs, from which the mutations start, and inputs on which a parser has failed once.
//!
//! An input is a text file, so that it can be read. A line holds bytes in hexadecimal and text in quotes. `@` with a
//! number continues at that offset and fills the gap before it with zeros. `#` begins a comment.

use std::collections::hash_map::DefaultHasher;
use std::fmt::Write;
use std::fs;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};

/// The inputs for one parser.
pub struct Corpus(PathBuf);

impl Corpus {
    /// That of the parser with this name.
    pub fn open(name: &str) -> Self {
        Self(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/robust/corpus").join(name))
    }

    /// Returns all inputs with the names of their files, in the order of these.
    pub fn read(&self) -> Vec<(String, Vec<u8>)> {
        let entries = fs::read_dir(&self.0).expect("every parser has a folder in the corpus");
        let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        assert!(!paths.is_empty(), "{} is empty", self.0.display());
        let read = |path: &PathBuf| (path.display().to_string(), decode(&fs::read_to_string(path).unwrap()));
        paths.iter().map(read).collect()
    }

    /// Writes an input into the corpus, and returns a text that says where it is and what is in it.
    pub fn keep(&self, input: &[u8], reason: &str) -> String {
        let text = encode(input, reason);
        let mut hasher = DefaultHasher::new();
        input.hash(&mut hasher);
        let path = self.0.join(format!("found-{:08x}.txt", hasher.finish() as u32));
        let result = match fs::write(&path, &text) {
            Ok(()) => format!("the input was written to {}", path.display()),
            Err(error) => format!("the input could not be written to {}: {error}", path.display()),
        };
        format!("{result}:\n{text}")
    }
}

/// Returns the bytes that a file of the corpus stands for.
pub fn decode(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for line in text.lines() {
        let mut rest = line.trim_start();
        while !rest.is_empty() && !rest.starts_with('#') {
            if let Some(quoted) = rest.strip_prefix('"') {
                let (text, after) = quoted.split_once('"').expect("a quote has an end");
                bytes.extend_from_slice(text.as_bytes());
                rest = after.trim_start();
                continue;
            }
            let (word, after) = rest.split_at(rest.find([' ', '"']).unwrap_or(rest.len()));
            let number = |digits| usize::from_str_radix(digits, 16).unwrap_or_else(|_| panic!("{line}"));
            if let Some(offset) = word.strip_prefix('@') {
                assert!(number(offset) >= bytes.len(), "{line} goes back");
                bytes.resize(number(offset), 0);
            } else {
                assert!(word.len().is_multiple_of(2), "{line} has half a byte");
                bytes.extend((0..word.len() / 2).map(|at| number(&word[2 * at..2 * at + 2]) as u8));
            }
            rest = after.trim_start();
        }
    }
    bytes
}

/// Returns a file of the corpus that stands for `bytes`.
fn encode(bytes: &[u8], reason: &str) -> String {
    let mut text = String::new();
    for line in reason.lines() {
        let _ = writeln!(text, "# {line}");
    }
    let (chunks, rest) = bytes.as_chunks::<16>();
    let lines = chunks.iter().map(<[u8; 16]>::as_slice).chain([rest]);
    let mut skipped = false;
    for (index, line) in lines.enumerate() {
        if *line == [0; 16] && index + 1 < chunks.len() {
            skipped = true;
            continue;
        }
        if skipped {
            let _ = write!(text, "@{:x} ", index * 16);
            skipped = false;
        }
        for byte in line {
            let _ = write!(text, "{byte:02x}");
        }
        text.push('\n');
    }
    text
}

#[test]
fn files_of_the_corpus_stand_for_bytes() {
    assert!(decode("# nothing\n\n").is_empty());
    assert_eq!(decode("\"RSD \" 00ff # the end\n  7f\n@a 01"), b"RSD \0\xff\x7f\0\0\0\x01");
    for bytes in [vec![], vec![7; 15], vec![0; 33], [vec![1; 16], vec![0; 64], vec![2; 3]].concat()] {
        assert_eq!(decode(&encode(&bytes, "two\nlines")), bytes);
    }
}
