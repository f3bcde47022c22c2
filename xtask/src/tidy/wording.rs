//! Checks how doc comments begin. rustdoc shows each of them alone, so a pronoun at the start has no noun there.

use super::source::{Source, Violation};

/// First words of a doc comment that refer to something that is not there, each with what to write.
const REFERENCES: [(&str, &str); 3] = [
    ("Its", "name the thing that it belongs to"),
    ("Their", "name the things that it belongs to"),
    ("Whether", "write `True if` or `Returns true if`"),
];

/// Checks the first line of each doc comment of an item.
pub fn check(source: &Source) -> Vec<Violation> {
    let mut broken = Vec::new();
    let mut continues = false;
    for (index, line) in source.lines.iter().enumerate() {
        let text = line.comment.trim_start().strip_prefix("///");
        if let Some(text) = text.filter(|_| !continues) {
            let first = text.split_whitespace().next().unwrap_or_default();
            let found = REFERENCES.iter().find(|(word, _)| *word == first);
            broken.extend(
                found.map(|(word, advice)| {
                    (index + 1, format!("a doc comment begins with `{word}`: {advice}"))
                }),
            );
        }
        continues = text.is_some();
    }
    broken
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<usize> {
        check(&Source::new(text)).into_iter().map(|(line, _)| line).collect()
    }

    #[test]
    fn a_doc_comment_that_begins_with_a_reference_is_found() {
        assert_eq!(lines("/// A name.\n///\n/// Its length.\na: u8,\n/// Its size.\nb: u8,"), [5]);
        assert_eq!(lines("/// Whether it is.\nfn a() {}\n    /// Their root.\n    c: u8,"), [1, 3]);
    }

    #[test]
    fn other_comments_may_begin_as_they_like() {
        assert_eq!(
            lines("// Its size.\n//! Its size.\n/// Itself.\nfn a() {}\nlet b = \"/// Its\";"),
            [0; 0]
        );
    }
}
