//! The question before `vidarctl crash` ends this Linux.

use std::io::{BufRead, Write};

/// What the user has to type.
const YES: &str = "yes";

/// Says what will happen, and returns true if the user then types "yes".
pub fn confirmed(mut answers: impl BufRead, questions: &mut impl Write) -> bool {
    let asked = write!(
        questions,
        "This ends this Linux at once: Vidar writes a crash report to the screen and the serial line, and then halts or \
         resets the machine.\nWhat is not on a disk yet is lost. Type {YES} to go on: "
    );
    let mut answer = String::new();
    asked.and_then(|()| questions.flush()).is_ok()
        && answers.read_line(&mut answer).is_ok()
        && answer.trim() == YES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_yes_is_a_confirmation() {
        for (answer, sure) in [
            ("yes\n", true),
            ("yes", true),
            (" yes \r\n", true),
            ("y\n", false),
            ("no\nyes\n", false),
            ("", false),
        ] {
            let mut question = Vec::new();
            assert_eq!(confirmed(answer.as_bytes(), &mut question), sure, "{answer:?}");
            let question = String::from_utf8(question).unwrap();
            assert!(question.contains("halts or resets the machine"), "{question}");
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_no_confirmation() {
        assert!(!confirmed(&b"\xff\n"[..], &mut Vec::new()));
    }
}
