//! Checks that manuals are cited by volume, section number and title, since numbers move from one edition to the next.

use super::source::{Source, Violation};

/// The manuals: Intel's Software Developer's Manual and AMD's Architecture Programmer's Manual.
const MANUALS: [&str; 2] = ["SDM", "APM"];

/// Checks the citations in the comments.
pub fn check(source: &Source) -> Vec<Violation> {
    let mut broken = Vec::new();
    let mut block = Vec::new();
    for (index, line) in source.lines.iter().enumerate() {
        if !line.comment.is_empty() {
            block.push((index + 1, line.comment.as_str()));
        }
        if !line.is_comment() {
            check_block(&block, &mut broken);
            block.clear();
        }
    }
    check_block(&block, &mut broken);
    broken
}

/// Checks consecutive comment lines as one text, since a citation may continue on the next line.
fn check_block(block: &[(usize, &str)], broken: &mut Vec<Violation>) {
    let mut text = String::new();
    let mut starts = Vec::new();
    for (line, comment) in block {
        starts.push((text.len(), *line));
        text.push_str(comment.trim_start_matches(['/', '!', '*']).trim());
        text.push(' ');
    }
    for manual in MANUALS {
        for (at, _) in text.match_indices(manual) {
            let alone = |character: Option<char>| !character.is_some_and(char::is_alphanumeric);
            let after = &text[at + manual.len()..];
            if alone(text[..at].chars().next_back()) && alone(after.chars().next()) && !is_citation(after) {
                let line = starts[starts.partition_point(|(start, _)| *start <= at) - 1].1;
                let form = format!("cite the manual as {manual} Vol. N, N.N \"Title\"");
                broken.push((line, form));
            }
        }
    }
}

/// Returns true if the text begins with ` Vol. 3C, 27.2.3 "Title"` or the like.
fn is_citation(text: &str) -> bool {
    let Some(text) = text.strip_prefix(" Vol. ") else { return false };
    let Some((volume, text)) = text.split_once(' ') else { return false };
    let volume = volume.trim_end_matches(',');
    let numbered = volume.starts_with(|character: char| character.is_ascii_digit()) && volume.len() <= 2;
    let text = ["Appendix ", "Table ", "chapter ", "chapters "]
        .iter()
        .find_map(|kind| text.strip_prefix(kind))
        .unwrap_or(text);
    let Some((section, title)) = text.split_once(' ') else { return false };
    let section = section.trim_end_matches(',');
    let is_number = section
        .contains(|character: char| character.is_ascii_digit() || character.is_ascii_uppercase())
        && section.chars().all(|character| character.is_ascii_alphanumeric() || ".-".contains(character));
    let quoted = title.strip_prefix('"').and_then(|title| title.split_once('"'));
    numbered && is_number && quoted.is_some_and(|(title, _)| !title.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<usize> {
        check(&Source::new(text)).into_iter().map(|(line, _)| line).collect()
    }

    #[test]
    fn number_and_title_make_a_citation() {
        for text in [
            "// SDM Vol. 3C, 28.3.2 \"Loading Guest State\"",
            "/// See SDM Vol. 3A 2.5 \"Control Registers\", and APM Vol. 2, 15.5.1 \"Basic Operation\".",
            "a(); // SDM Vol. 3D, A.3.1 \"Pin-Based VM-Execution Controls\"",
            "//! As in SDM Vol. 3C, 26.1.2\n//! \"Instructions That Cause VM Exits Unconditionally\".",
            "// SDM Vol. 3C, Table 28-7 \"Exit Qualification for EPT Violations\"",
            "// SDM Vol. 3C, chapters 24 \"Introduction to Virtual Machine Extensions\" to 28 \"VM Exits\"",
            "let a = \"see the SDM\";",
            "// SDMA is something else.",
        ] {
            assert_eq!(lines(text), [0; 0], "{text}");
        }
    }

    #[test]
    fn incomplete_citations_are_found() {
        assert_eq!(lines("// As the SDM says."), [1]);
        assert_eq!(lines("\n// SDM Vol. 3C, 28.3.2"), [2]);
        assert_eq!(lines("// SDM Vol. 3C \"Loading Guest State\""), [1]);
        assert_eq!(lines("// SDM 28.3.2 \"Loading Guest State\""), [1]);
        assert_eq!(lines("// One.\n// APM, 15.5.1 \"Basic Operation\""), [2]);
    }
}
