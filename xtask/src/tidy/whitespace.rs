//! Checks for white space that an editor does not show.

use super::source::Violation;

/// Checks that there are no tabs, no white space at the end of a line, and exactly one line end at the end of the file.
pub fn check(text: &str) -> Vec<Violation> {
    let mut broken = Vec::new();
    for (index, line) in text.split('\n').enumerate() {
        if line.contains('\t') {
            broken.push((index + 1, "a tab".into()));
        }
        if line.ends_with(char::is_whitespace) {
            broken.push((index + 1, "white space at the end of the line".into()));
        }
    }
    if !text.is_empty() && (!text.ends_with('\n') || text.ends_with("\n\n")) {
        broken.push((text.lines().count(), "the file does not end with exactly one line end".into()));
    }
    broken
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clean_text_has_no_findings() {
        assert_eq!(check("a\n\n    b\n"), []);
        assert_eq!(check(""), []);
    }

    #[test]
    fn invisible_white_space_is_found() {
        let lines = |text| check(text).into_iter().map(|(line, _)| line).collect::<Vec<_>>();
        assert_eq!(lines("a\n\tb\n"), [2]);
        assert_eq!(lines("a \nb\r\n"), [1, 2]);
        assert_eq!(lines("a\nb"), [2]);
        assert_eq!(lines("a\n\n"), [2]);
    }
}
