//! JSON strings. The answers are small objects, so the code that prints them writes the rest of their JSON itself.

/// Returns the text as a JSON string, with quotes around it. All control characters are escaped, also those that JSON
/// allows, so that the string does not control a terminal.
pub fn string(text: &str) -> String {
    let mut json = String::with_capacity(text.len() + 2);
    json.push('"');
    for character in text.chars() {
        match character {
            '"' => json.push_str("\\\""),
            '\\' => json.push_str("\\\\"),
            control if control.is_control() => json.push_str(&format!("\\u{:04x}", u32::from(control))),
            other => json.push(other),
        }
    }
    json.push('"');
    json
}

#[cfg(test)]
mod tests {
    #[test]
    fn characters_that_json_forbids_are_escaped() {
        assert_eq!(super::string("a\"b\\c\td\u{1}ö\u{9b}"), "\"a\\\"b\\\\c\\u0009d\\u0001ö\\u009b\"");
    }
}
