//! How long a file is, and that it says what it is.

use super::source::Broken;

/// From here on a file needs a reason.
const LONG: usize = 400;
/// From here on the only reason is that it holds a table.
const TOO_LONG: usize = 600;

const REASON: &str = "// tidy: long because ";

/// Checks the length, and that the first line is a comment: one concept to a file, and its name in a sentence.
pub fn check(text: &str) -> Vec<Broken> {
    let mut broken = Vec::new();
    // Assembly has more than one kind of comment.
    if !["//", "/*", "# "].iter().any(|start| text.starts_with(start)) {
        broken.push((1, "the file does not begin by saying what it is".into()));
    }
    let lines = text.lines().count();
    let reason = text.lines().find_map(|line| line.strip_prefix(REASON));
    let sentence = match reason {
        _ if lines <= LONG => return broken,
        None => format!("{lines} lines are too many: split the file, or say `{REASON}...`"),
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
    fn a_reason_helps_up_to_six_hundred() {
        let reason = "// tidy: long because the steps belong together";
        assert_eq!(check(&file(600, reason)), []);
        assert_eq!(check(&file(601, reason)).len(), 1);
        assert_eq!(check(&file(900, "// tidy: long because it is one table")), []);
    }

    #[test]
    fn a_file_says_what_it_is() {
        assert_eq!(check("use std::fs;\n").len(), 1);
        assert_eq!(check("#![no_std]\n").len(), 1);
        assert_eq!(check("//! Files.\n"), []);
        assert_eq!(check("# Entry.\n"), []);
    }
}
