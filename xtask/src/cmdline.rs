//! Command lines: their words, as GRUB can hand them on so that Linux reads the same.

use anyhow::{Result, ensure};

/// The words of a command line, without the double quotes that keep a word with spaces together.
///
/// GRUB puts quotes of its own around such a word, `"a=b c"`, which Linux reads as it reads `a="b c"`. Before every
/// other quote, and before a backslash, it puts a backslash, which Linux would take as it is: those are refused.
pub fn words(text: &str) -> Result<Vec<String>> {
    ensure!(!text.contains(char::is_control), "it must be one line");
    ensure!(!text.contains(['\'', '\\']), "GRUB cannot hand on a \"'\" or a \"\\\"");
    let mut words = vec![String::new()];
    let mut quoted = false;
    for (at, c) in text.char_indices() {
        match c {
            '"' => {
                // Linux takes off quotes around a word and around a value, and leaves others where they are.
                let (before, after) = (&text[..at], &text[at + 1..]);
                let fits = if quoted {
                    after.is_empty() || after.starts_with(' ')
                } else {
                    let word = words.last().expect("it begins with one");
                    before.is_empty()
                        || before.ends_with(' ')
                        || word.find('=').is_some_and(|equals| equals + 1 == word.len())
                };
                ensure!(fits, "GRUB cannot hand on a \"\"\" that is not around a word or a value");
                quoted = !quoted;
            }
            ' ' if !quoted => words.push(String::new()),
            other => words.last_mut().expect("it begins with one").push(other),
        }
    }
    ensure!(!quoted, "a \"\"\" has no partner");
    words.retain(|word| !word.is_empty());
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_keep_a_word_together() {
        assert_eq!(words(" a=b  c ").unwrap(), ["a=b", "c"]);
        assert_eq!(words(r#"dyndbg="file a.c +p" quiet"#).unwrap(), ["dyndbg=file a.c +p", "quiet"]);
        assert_eq!(words(r#""dyndbg=file a.c +p" "x""#).unwrap(), ["dyndbg=file a.c +p", "x"]);
        assert_eq!(words(r#"a="" "" b"#).unwrap(), ["a=", "b"]);
        assert!(words("").unwrap().is_empty());
    }

    #[test]
    fn what_grub_would_change_is_refused() {
        for (text, sentence) in [
            ("a\nb", "it must be one line"),
            ("it's", r#"GRUB cannot hand on a "'" or a "\""#),
            (r"a\b", r#"GRUB cannot hand on a "'" or a "\""#),
            (r#"a="b c"#, r#"a """ has no partner"#),
            (r#"a=b"c d""#, r#"GRUB cannot hand on a """ that is not around a word or a value"#),
            (r#"a="b"c"#, r#"GRUB cannot hand on a """ that is not around a word or a value"#),
            (r#""a="b c"""#, r#"GRUB cannot hand on a """ that is not around a word or a value"#),
        ] {
            assert_eq!(words(text).unwrap_err().to_string(), sentence, "{text}");
        }
    }
}
