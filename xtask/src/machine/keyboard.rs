//! The layout of a US keyboard: which keys make a character, by QEMU's names for the keys.

/// The keys whose name is not their character: the name, the character, and the character with shift.
const NAMED: &[(&str, char, Option<char>)] = &[
    ("spc", ' ', None),
    ("ret", '\n', None),
    ("grave_accent", '`', Some('~')),
    ("minus", '-', Some('_')),
    ("equal", '=', Some('+')),
    ("bracket_left", '[', Some('{')),
    ("bracket_right", ']', Some('}')),
    ("backslash", '\\', Some('|')),
    ("semicolon", ';', Some(':')),
    ("apostrophe", '\'', Some('"')),
    ("comma", ',', Some('<')),
    ("dot", '.', Some('>')),
    ("slash", '/', Some('?')),
];

/// The characters that the digit keys make with shift, from 0 on.
const ABOVE_DIGITS: &str = ")!@#$%^&*(";

/// Returns the keys that have to be pressed at once for `character`, or `None` if the keyboard cannot make it.
pub fn keys(character: char) -> Option<Vec<String>> {
    let (key, shift) = match character {
        'a'..='z' | '0'..='9' => (character.to_string(), false),
        'A'..='Z' => (character.to_ascii_lowercase().to_string(), true),
        _ => match ABOVE_DIGITS.find(character) {
            Some(digit) => (digit.to_string(), true),
            None => named(character)?,
        },
    };
    Some(if shift { vec!["shift".to_owned(), key] } else { vec![key] })
}

fn named(character: char) -> Option<(String, bool)> {
    let makes = |(_, plain, shifted): &&(&str, char, Option<char>)| {
        *plain == character || *shifted == Some(character)
    };
    NAMED.iter().find(makes).map(|(name, plain, _)| ((*name).to_owned(), *plain != character))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_character_has_keys_of_its_own() {
        let mut all: Vec<_> = (' '..='~').map(|character| keys(character).expect("a key")).collect();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 95);
        assert_eq!(keys('a'), Some(vec!["a".to_owned()]));
        assert_eq!(keys('|'), Some(vec!["shift".to_owned(), "backslash".to_owned()]));
        assert_eq!(keys('('), Some(vec!["shift".to_owned(), "9".to_owned()]));
        assert_eq!(keys('\n'), Some(vec!["ret".to_owned()]));
        assert_eq!(keys('\u{e9}'), None);
    }
}
