//! Checks the width of prose in pages, so that it can be read in a terminal and compared line by line.

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
        let columns = without_targets(line).chars().count();
        if columns > COLUMNS {
            broken
                .push((index + 1, format!("{columns} columns are too many for prose: wrap it at {COLUMNS}")));
        }
    }
    broken
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
}
