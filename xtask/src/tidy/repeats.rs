//! Finds parts of a page that are in it a second time, as an edit that went wrong leaves them behind.

use std::collections::HashMap;

use super::source::Violation;

/// The fewest characters of a line that stands in a page once.
const LONG: usize = 100;

/// Checks that no long line of a page is in it twice. Tables may have the same rows.
pub fn check(text: &str) -> Vec<Violation> {
    let mut first = HashMap::new();
    let mut broken = Vec::new();
    let is_prose = |line: &str| line.len() >= LONG && !line.starts_with('|');
    for (line, number) in text.lines().zip(1..).filter(|(line, _)| is_prose(line)) {
        if let Some(earlier) = first.insert(line, number) {
            broken.push((number, format!("this line is in the page already, as line {earlier}")));
        }
    }
    broken
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_line_is_in_a_page_once() {
        let long = "a".repeat(LONG);
        assert_eq!(check(&format!("{long}\n{long}b\n|{long}|\n|{long}|\n---\n---\n")), []);
        assert_eq!(check(&format!("{long}\n\n{long}\n"))[0].0, 3);
    }
}
