//! Checks unsafe code: each block needs a reason, each function needs its conditions, and the core has none.

use super::source::{Line, Source, Violation};

/// Words that the code of the core may not have: it is safe, and the same for every target.
const NOT_IN_CORE: [&str; 2] = ["unsafe", "target_os"];

/// Checks that every unsafe block and impl has a `SAFETY:` comment, and every unsafe function a `# Safety` section.
pub fn check(source: &Source) -> Vec<Violation> {
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

/// Checks that a file of the core has none of the words that it may not have.
pub fn check_core(source: &Source) -> Vec<Violation> {
    let mut broken = Vec::new();
    for (index, line) in source.lines.iter().enumerate() {
        let found = NOT_IN_CORE.iter().filter(|word| line.words().any(|(other, _)| other == **word));
        broken.extend(found.map(|word| (index + 1, format!("the core has no code with `{word}`"))));
    }
    broken
}

/// Returns true if the comment on the line, or the one right above it and its attributes, says `SAFETY:`.
fn has_reason(lines: &[Line], index: usize) -> bool {
    let says = |line: &Line| line.comment.contains("SAFETY:");
    if says(&lines[index]) {
        return true;
    }
    let above = lines[..index].iter().rev().skip_while(|line| line.is_attribute());
    above.take_while(|line| line.is_comment()).any(says)
}

/// Returns true if `rest` declares a function (`extern "C" fn name` or `fn name`). A function type and a block of
/// foreign functions do not.
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
        assert_eq!(lines("// SAFETY: it is.\nlet b =\n    c(unsafe { a() });"), [3], "not right above");
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
    fn unsafe_code_and_targets_in_the_core_are_found() {
        let source = Source::new("// unsafe\n#[cfg(target_os = \"none\")]\n// SAFETY: x.\nunsafe { a() };");
        let sentence = |word| format!("the core has no code with `{word}`");
        assert_eq!(check_core(&source), [(2, sentence("target_os")), (4, sentence("unsafe"))]);
    }
}
