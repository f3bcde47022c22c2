//! Checks unsafe code: each block needs a reason, each function needs its conditions, and some rooms may have none.

use super::source::{Broken, Line, Source};

/// The rooms of `hv/src` without any unsafe code.
const SAFE_ROOMS: [&str; 2] = ["vmm", "guest"];

/// The largest number of lines of a statement between its SAFETY comment and the unsafe block in it.
const REACH: usize = 6;

/// Checks that every unsafe block and impl has a `SAFETY:` comment, and every unsafe function a `# Safety` section.
pub fn check(source: &Source) -> Vec<Broken> {
    let mut broken = Vec::new();
    for (index, line) in source.lines.iter().enumerate() {
        for (word, rest) in line.words() {
            if word != "unsafe" {
                continue;
            }
            let next = rest.trim_start();
            if (next.starts_with('{') || next.starts_with("impl")) && !has_reason(&source.lines, index) {
                broken.push((index + 1, "unsafe without a SAFETY: comment before it".into()));
            }
            if declares_function(next)
                && !in_trait_impl(&source.lines, index)
                && !has_conditions(&source.lines, index)
            {
                broken.push((index + 1, "an unsafe function without a # Safety section".into()));
            }
        }
    }
    broken.dedup();
    broken
}

/// Checks that there is no unsafe code in the rooms that must have none.
pub fn check_room(place: &str, source: &Source) -> Vec<Broken> {
    let room = place.split(['/', '.']).next().unwrap_or_default();
    if !SAFE_ROOMS.contains(&room) {
        return Vec::new();
    }
    let has_unsafe = |line: &Line| line.words().any(|(word, _)| word == "unsafe");
    let lines = source.lines.iter().enumerate().filter(|(_, line)| has_unsafe(line));
    lines.map(|(index, _)| (index + 1, format!("{room} has no unsafe code"))).collect()
}

/// Returns true if the comment on the line, or the one before the statement, says `SAFETY:`.
fn has_reason(lines: &[Line], index: usize) -> bool {
    let says = |line: &Line| line.comment.contains("SAFETY:");
    if says(&lines[index]) {
        return true;
    }
    let mut above = lines[..index].iter().rev().peekable();
    for _ in 0..REACH {
        match above.peek() {
            Some(line) if line.is_comment() => break,
            Some(line) if line.is_attribute() || !ends_statement(&line.code) => above.next(),
            _ => return false,
        };
    }
    above.take_while(|line| line.is_comment()).any(says)
}

/// Returns true if a new statement begins on the next line.
fn ends_statement(code: &str) -> bool {
    let code = code.trim_end();
    code.is_empty() || code.ends_with([';', '{', '}'])
}

/// Returns true if `rest` declares a function (`extern "C" fn name` or `fn name`). A function type and a block of foreign
/// functions do not.
fn declares_function(rest: &str) -> bool {
    let rest = rest
        .strip_prefix("extern")
        .map_or(rest, |rest| rest.trim_start().trim_start_matches('"').trim_start());
    let Some(name) = rest.strip_prefix("fn ") else { return false };
    name.starts_with(|character: char| character == '_' || character.is_alphabetic())
}

/// Returns true if the documentation above the line has a `# Safety` section.
fn has_conditions(lines: &[Line], index: usize) -> bool {
    let above = lines[..index].iter().rev().take_while(|line| line.is_comment() || line.is_attribute());
    above.into_iter().any(|line| line.comment.starts_with("/// # Safety"))
}

/// Returns true if the line is in the implementation of a trait. There, the trait's documentation has the conditions.
fn in_trait_impl(lines: &[Line], index: usize) -> bool {
    let mut depth = 0_i32;
    for line in lines[..index].iter().rev() {
        for character in line.code.chars().rev() {
            depth += match character {
                '}' => 1,
                '{' => -1,
                _ => 0,
            };
            if depth < 0 {
                return line.words().any(|(word, _)| word == "impl")
                    && line.words().any(|(word, _)| word == "for");
            }
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<usize> {
        check(&Source::new(text)).into_iter().map(|(line, _)| line).collect()
    }

    #[test]
    fn a_block_with_a_reason_is_allowed() {
        for text in [
            "// SAFETY: it is.\nunsafe { a() };",
            "// SAFETY: it is,\n// and this is why.\nlet b = unsafe { a() };",
            "// SAFETY: it is.\nlet b =\n    c(unsafe { a() });",
            "// SAFETY: it is.\n#[expect(x)]\nunsafe impl Sync for A {}",
            "let a = unsafe { b }; // SAFETY: it is.",
            "// unsafe { a() }",
            "let a = \"unsafe {\";",
            "unsafe extern \"C\" {\n}",
            "type A = unsafe fn(u32);",
        ] {
            assert_eq!(lines(text), [0; 0], "{text}");
        }
    }

    #[test]
    fn a_block_without_a_reason_is_found() {
        assert_eq!(lines("\nunsafe { a() };"), [2]);
        assert_eq!(lines("// It is safe.\nunsafe { a() };"), [2]);
        assert_eq!(lines("// SAFETY: it is.\nunsafe { a() };\nunsafe { b() };"), [3]);
        assert_eq!(lines("// SAFETY: it is.\n\nunsafe { a() };"), [3]);
        assert_eq!(lines("unsafe impl Send for A {}"), [1]);
    }

    #[test]
    fn an_unsafe_function_must_state_its_conditions() {
        assert_eq!(
            lines("/// Does.\n///\n/// # Safety\n///\n/// If so.\n#[inline]\npub unsafe fn a() {}"),
            [0; 0]
        );
        assert_eq!(lines("/// Does.\npub unsafe fn a() {}"), [2]);
        assert_eq!(lines("unsafe extern \"C\" fn a() {}"), [1]);
        let block = "// SAFETY: x.\nunsafe impl A for B {\n    fn c() { d() }\n    unsafe fn e() {}\n}";
        assert_eq!(lines(block), [0; 0], "the trait has the conditions");
        assert_eq!(lines("impl B {\n    unsafe fn e() {}\n}"), [2]);
    }

    #[test]
    fn unsafe_code_in_a_safe_room_is_found() {
        let source = Source::new("// unsafe\n// SAFETY: x.\nunsafe { a() };");
        assert_eq!(check_room("vmm/run.rs", &source), [(3, "vmm has no unsafe code".to_string())]);
        assert_eq!(check_room("guest/mod.rs", &source).len(), 1);
        assert_eq!(check_room("vmx/mod.rs", &source), []);
    }
}
