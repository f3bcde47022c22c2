//! Checks the length of a file, and that it begins with a comment that says what it is.

use super::source::Violation;

/// A file with more lines needs a reason.
const LONG: usize = 400;
/// For a file with more lines, a table is the only reason that counts.
const TOO_LONG: usize = 600;

const REASON: &str = "// tidy: long because ";

/// Checks the length and the first line. A file should hold one concept, which its first sentence names.
pub fn check(text: &str) -> Vec<Violation> {
    let mut broken = Vec::new();
    // The second and third kind are for assembly and scripts.
    if !["//", "/*", "# "].iter().any(|start| text.starts_with(start)) {
        broken.push((1, "the file does not begin with a comment that says what it is".into()));
    }
    let lines = text.lines().count();
    let reason = text.lines().find_map(|line| line.strip_prefix(REASON));
    let sentence = match reason {
        _ if lines <= LONG => return broken,
        None => format!("{lines} lines are too many: split the file, or add the comment `{REASON}...`"),
        Some(reason) if lines > TOO_LONG && !reason.contains("table") => {
            format!("{lines} lines are too many for anything but a table: split the file")
        }
        Some(_) => return broken,
    };
    broken.push((lines, sentence));
    broken
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(lines: usize, reason: &str) -> String {
        format!("//! A file.\n{reason}\n{}", "a\n".repeat(lines - 2))
    }

    #[test]
    fn four_hundred_lines_need_no_reason() {
        assert_eq!(check(&file(400, "")), []);
        assert_eq!(check(&file(401, "")).len(), 1);
    }

    #[test]
    fn a_reason_allows_six_hundred_lines() {
        let reason = "// tidy: long because the steps belong together";
        assert_eq!(check(&file(600, reason)), []);
        assert_eq!(check(&file(601, reason)).len(), 1);
        assert_eq!(check(&file(900, "// tidy: long because it is one table")), []);
    }

    #[test]
    fn a_file_must_begin_with_a_comment() {
        assert_eq!(check("use std::fs;\n").len(), 1);
        assert_eq!(check("#![no_std]\n").len(), 1);
        assert_eq!(check("//! Files.\n"), []);
        assert_eq!(check("# Entry.\n"), []);
    }
}
