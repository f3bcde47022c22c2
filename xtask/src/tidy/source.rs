//! Splits a source file into code and comments, line by line.

/// A violation of a rule: the number of a line, from 1, and a sentence about it.
pub type Violation = (usize, String);

/// A line of a source file.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Line {
    /// The code, without comments and without the content of strings.
    pub code: String,
    /// The comment, with its slashes; empty if there is none.
    pub comment: String,
}

impl Line {
    /// Returns true if the line has a comment and no code.
    pub fn is_comment(&self) -> bool {
        self.code.trim().is_empty() && !self.comment.is_empty()
    }

    /// Returns true if the line begins with an attribute.
    pub fn is_attribute(&self) -> bool {
        self.code.trim_start().starts_with("#[")
    }

    /// Returns the words of the code, each with the text that follows it.
    pub fn words(&self) -> impl Iterator<Item = (&str, &str)> {
        let mut rest = self.code.as_str();
        std::iter::from_fn(move || {
            let start = rest.find(is_word)?;
            let tail = &rest[start..];
            let end = tail.find(|character| !is_word(character)).unwrap_or(tail.len());
            rest = &tail[end..];
            Some((&tail[..end], rest))
        })
    }
}

/// Returns true if the character may be part of a name.
pub fn is_word(character: char) -> bool {
    character == '_' || character.is_alphanumeric()
}

/// A Rust or assembly file.
pub struct Source {
    /// The lines of the file.
    pub lines: Vec<Line>,
}

/// What the text at the current position is part of.
enum State {
    Code,
    LineComment,
    /// A block comment, nested to this depth.
    BlockComment(usize),
    String,
    /// A raw string that ends with this number of `#`.
    RawString(usize),
}

impl Source {
    /// Splits the text. This is no full parser, but it handles code that compiles and that rustfmt has formatted.
    pub fn new(text: &str) -> Self {
        let mut state = State::Code;
        let mut lines = Vec::new();
        for text in text.lines() {
            let mut line = Line::default();
            if matches!(state, State::LineComment) {
                state = State::Code;
            }
            let mut rest = text;
            while let Some(character) = rest.chars().next() {
                let taken = step(&mut state, rest, &mut line).max(character.len_utf8());
                rest = &rest[taken..];
            }
            lines.push(line);
        }
        Self { lines }
    }
}

/// Reads one item at the start of `rest`. Returns its length in bytes.
fn step(state: &mut State, rest: &str, line: &mut Line) -> usize {
    let first = rest.chars().next().map_or(0, char::len_utf8);
    match state {
        State::LineComment => {
            line.comment.push_str(rest);
            rest.len()
        }
        State::BlockComment(depth) => {
            let (length, change) = match rest {
                _ if rest.starts_with("/*") => (2, 1),
                _ if rest.starts_with("*/") => (2, -1),
                _ => (first, 0),
            };
            line.comment.push_str(&rest[..length]);
            match depth.checked_add_signed(change) {
                Some(0) | None => *state = State::Code,
                Some(deeper) => *depth = deeper,
            }
            length
        }
        State::String => {
            if rest.starts_with('"') {
                *state = State::Code;
                line.code.push('"');
            } else if let Some(escaped) = rest.strip_prefix('\\') {
                return 1 + escaped.chars().next().map_or(0, char::len_utf8);
            }
            first
        }
        State::RawString(hashes) => {
            let end = format!("\"{}", "#".repeat(*hashes));
            if !rest.starts_with(&end) {
                return first;
            }
            *state = State::Code;
            line.code.push('"');
            end.len()
        }
        State::Code => code(state, rest, line, first),
    }
}

fn code(state: &mut State, rest: &str, line: &mut Line, first: usize) -> usize {
    if rest.starts_with("//") {
        *state = State::LineComment;
        return step(state, rest, line);
    }
    if rest.starts_with("/*") {
        line.comment.push_str("/*");
        *state = State::BlockComment(1);
        return 2;
    }
    let before = line.code.chars().last();
    if !before.is_some_and(is_word) {
        let prefix =
            rest.strip_prefix("br").or_else(|| rest.strip_prefix("cr")).or_else(|| rest.strip_prefix('r'));
        if let Some(tail) = prefix {
            let hashes = tail.len() - tail.trim_start_matches('#').len();
            if tail[hashes..].starts_with('"') {
                *state = State::RawString(hashes);
                line.code.push('"');
                return rest.len() - tail.len() + hashes + 1;
            }
        }
    }
    if rest.starts_with('"') {
        *state = State::String;
        line.code.push('"');
        return 1;
    }
    if let Some(tail) = rest.strip_prefix('\'') {
        // A character, unless it is a lifetime.
        let length = match tail.chars().next() {
            Some('\\') => tail[1..]
                .chars()
                .next()
                .map(|c| 1 + c.len_utf8())
                .and_then(|skip| tail[skip..].find('\'').map(|end| skip + end + 2)),
            Some(character) => {
                tail[character.len_utf8()..].starts_with('\'').then(|| character.len_utf8() + 2)
            }
            None => None,
        };
        if let Some(length) = length {
            line.code.push_str("' '");
            return length;
        }
    }
    line.code.push_str(&rest[..first]);
    first
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code_of(text: &str) -> Vec<String> {
        Source::new(text).lines.into_iter().map(|line| line.code.trim_end().to_string()).collect()
    }

    #[test]
    fn comments_and_strings_are_not_code() {
        assert_eq!(code_of("a; // unsafe {"), ["a;"]);
        assert_eq!(code_of("a(\"unsafe // {\\\"\", b);"), ["a(\"\", b);"]);
        assert_eq!(code_of("a(r#\"one \" two\"#, br\"x\\\");"), ["a(\"\", \"\");"]);
        assert_eq!(code_of("a /* b /* c */ d */ e"), ["a  e"]);
        assert_eq!(code_of("a /* b\nc */ d \"e\nf\" g"), ["a", " d \"", "\" g"]);
    }

    #[test]
    fn characters_and_lifetimes_are_distinguished() {
        assert_eq!(code_of("a('\"', '\\'', '\\u{7f}', 'é'); // x"), ["a(' ', ' ', ' ', ' ');"]);
        assert_eq!(code_of("fn a<'b>(c: &'b str) -> &'b str {"), ["fn a<'b>(c: &'b str) -> &'b str {"]);
    }

    #[test]
    fn comments_are_separated_from_code() {
        let source = Source::new("a; // b\n/// c\n#[d]\n");
        assert_eq!(source.lines[0].comment, "// b");
        assert!(!source.lines[0].is_comment());
        assert!(source.lines[1].is_comment());
        assert!(source.lines[2].is_attribute());
    }

    #[test]
    fn words_come_with_what_follows() {
        let source = Source::new("pub unsafe fn a_1(b)");
        let words: Vec<_> = source.lines[0].words().collect();
        assert_eq!(
            words,
            [
                ("pub", " unsafe fn a_1(b)"),
                ("unsafe", " fn a_1(b)"),
                ("fn", " a_1(b)"),
                ("a_1", "(b)"),
                ("b", ")")
            ]
        );
    }
}
