//! JSON strings. The answers are flat objects, so the rest is written where it stands.

/// The text as a JSON string, with its quotes.
pub fn string(text: &str) -> String {
    let mut json = String::with_capacity(text.len() + 2);
    json.push('"');
    for character in text.chars() {
        match character {
            '"' => json.push_str("\\\""),
            '\\' => json.push_str("\\\\"),
            control if control < ' ' => json.push_str(&format!("\\u{:04x}", u32::from(control))),
            other => json.push(other),
        }
    }
    json.push('"');
    json
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_json_forbids_is_escaped() {
        assert_eq!(super::string("a\"b\\c\td\u{1}ö"), "\"a\\\"b\\\\c\\u0009d\\u0001ö\"");
    }
}
