//! Checks the width of prose in pages and comments, so that it can be read in a terminal and compared line by line.

use super::source::Violation;

/// The most columns of a line. The target of a link does not count.
const COLUMNS: usize = 120;

/// Checks the lines of a page, except for tables and code.
pub fn check(text: &str) -> Vec<Violation> {
    let mut broken = Vec::new();
    let mut in_code = false;
    for (index, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
        }
        let is_definition = line.starts_with('[') && line.contains("]: ");
        if in_code || line.starts_with('|') || is_definition {
            continue;
        }
        broken.extend(too_wide(index, line));
    }
    broken
}

/// Checks the lines of a source file that are comments, except for tables.
pub fn check_comments(text: &str) -> Vec<Violation> {
    let is_prose = |line: &str| {
        let comment = line.trim_start();
        comment.starts_with("//") && !comment.trim_start_matches(['/', '!', ' ']).starts_with('|')
    };
    let lines = text.lines().enumerate().filter(|(_, line)| is_prose(line));
    lines.filter_map(|(index, line)| too_wide(index, line)).collect()
}

/// Returns the violation if the line with this index is too wide.
fn too_wide(index: usize, line: &str) -> Option<Violation> {
    let columns = without_targets(line).chars().count();
    let sentence = || format!("{columns} columns are too many for prose: wrap it at {COLUMNS}");
    (columns > COLUMNS).then(|| (index + 1, sentence()))
}

/// Returns the line without the targets of its links.
fn without_targets(line: &str) -> String {
    let mut parts = line.split("](");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |shown, rest| shown + rest.split_once(')').map_or(rest, |(_, after)| after))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prose_of_120_columns_is_allowed() {
        assert_eq!(check(&"ä".repeat(120)), []);
        assert_eq!(check(&format!("# Page\n\n{}\n", "a".repeat(121)))[0].0, 3);
    }

    #[test]
    fn tables_code_and_targets_of_links_may_be_wider() {
        let wide = "a".repeat(121);
        for text in [
            format!("| {wide} |"),
            format!("```\n{wide}\n```"),
            format!("[a]({wide})"),
            format!("[1]: {wide}"),
        ] {
            assert_eq!(check(&text), [], "{text}");
        }
        assert_eq!(check(&format!("```\n{wide}\n```\n{wide}\n"))[0].0, 4);
    }

    #[test]
    fn comments_are_prose_and_code_is_not() {
        let wide = "a".repeat(113);
        for allowed in ["    // ", "    let _ = 2; // ", "/// | a | "] {
            assert_eq!(check_comments(&format!("//! Text.\n{allowed}{wide}\n")), [], "{allowed}");
        }
        for narrow in ["        // ", "    /// ", "//!     "] {
            assert_eq!(check_comments(&format!("//! Text.\n{narrow}a{wide}\n"))[0].0, 2, "{narrow}");
        }
    }
}
