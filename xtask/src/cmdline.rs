//! Splits command lines into words, and refuses those that GRUB would not pass to Linux unchanged.

use anyhow::{Result, ensure};

/// Returns the words of a command line, without the double quotes that keep a word with spaces together.
///
/// GRUB quotes such a word as a whole, `"a=b c"`, which Linux reads in the same way as `a="b c"`. Before any other
/// quote, and before a backslash, GRUB puts a backslash, which Linux would take literally. Such command lines are
/// refused.
pub fn words(text: &str) -> Result<Vec<String>> {
    ensure!(!text.contains(char::is_control), "it must be one line");
    ensure!(!text.contains(['\'', '\\']), "GRUB cannot pass on a \"'\" or a \"\\\"");
    let mut words = vec![String::new()];
    let mut quoted = false;
    for (at, c) in text.char_indices() {
        match c {
            '"' => {
                // Linux removes quotes around a word or around a value, and keeps all others.
                let (before, after) = (&text[..at], &text[at + 1..]);
                let fits = if quoted {
                    after.is_empty() || after.starts_with(' ')
                } else {
                    let word = words.last().expect("the list is never empty");
                    before.is_empty()
                        || before.ends_with(' ')
                        || word.find('=').is_some_and(|equals| equals + 1 == word.len())
                };
                ensure!(fits, "GRUB cannot pass on a \"\"\" that is not around a word or a value");
                quoted = !quoted;
            }
            ' ' if !quoted => words.push(String::new()),
            other => words.last_mut().expect("the list is never empty").push(other),
        }
    }
    ensure!(!quoted, "there is a \"\"\" without a closing one");
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
    fn command_lines_that_grub_would_change_are_refused() {
        for (text, sentence) in [
            ("a\nb", "it must be one line"),
            ("it's", r#"GRUB cannot pass on a "'" or a "\""#),
            (r"a\b", r#"GRUB cannot pass on a "'" or a "\""#),
            (r#"a="b c"#, r#"there is a """ without a closing one"#),
            (r#"a=b"c d""#, r#"GRUB cannot pass on a """ that is not around a word or a value"#),
            (r#"a="b"c"#, r#"GRUB cannot pass on a """ that is not around a word or a value"#),
            (r#""a="b c"""#, r#"GRUB cannot pass on a """ that is not around a word or a value"#),
        ] {
            assert_eq!(words(text).unwrap_err().to_string(), sentence, "{text}");
        }
    }
}
