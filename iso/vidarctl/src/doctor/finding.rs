//! What a check has found: a state, a sentence, and advice.

use vidar_core::boot::refusal::Refusal;

use crate::json::string;

/// The state of what a check looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// It is as Vidar needs it.
    Ok,
    /// Vidar starts all the same, and there is something to know before.
    Warning,
    /// It cannot be found out, for example since this program has too few rights.
    Unknown,
    /// Vidar cannot start.
    Problem,
}

impl State {
    /// Returns the word for the state, in the text and in JSON.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Unknown => "unknown",
            Self::Problem => "problem",
        }
    }
}

/// What a check has found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub state: State,
    /// Says what was found.
    pub text: String,
    /// Says what to do, unless all is well.
    pub advice: Option<String>,
}

impl Finding {
    pub fn ok(text: impl Into<String>) -> Self {
        Self { state: State::Ok, text: text.into(), advice: None }
    }

    pub fn warning(text: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { state: State::Warning, text: text.into(), advice: Some(advice.into()) }
    }

    pub fn unknown(text: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { state: State::Unknown, text: text.into(), advice: Some(advice.into()) }
    }

    pub fn problem(text: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { state: State::Problem, text: text.into(), advice: Some(advice.into()) }
    }

    /// Returns the problem for which Vidar would print this sentence. What to do is after its last colon or semicolon.
    pub fn refused(sentence: &str) -> Self {
        let end =
            [": ", "; "].into_iter().filter_map(|mark| sentence.rfind(mark)).max().unwrap_or(sentence.len());
        let (text, advice) = sentence.split_at(end);
        let advice = advice.get(2..).unwrap_or_default();
        Self::problem(text, advice.strip_suffix(", or boot the bare menu entry").unwrap_or(advice))
    }

    /// Returns the finding on a line, with the name of its check, and the advice on a second line.
    pub fn line(&self, id: &str) -> String {
        let line = format!("{:<8} {id:<16} {}\n", self.state.word(), self.text);
        match &self.advice {
            Some(advice) => format!("{line}{:25} -> {advice}\n", ""),
            None => line,
        }
    }

    /// Returns the finding as a JSON object, with the name of its check.
    pub fn json(&self, id: &str) -> String {
        format!(
            "{{\"id\":{},\"state\":{},\"text\":{},\"advice\":{}}}",
            string(id),
            string(self.state.word()),
            string(&self.text),
            self.advice.as_deref().map_or_else(|| "null".into(), string)
        )
    }
}

impl From<Refusal> for Finding {
    fn from(refusal: Refusal) -> Self {
        Self::refused(&refusal.to_string())
    }
}

#[cfg(test)]
mod tests {
    use vidar_core::boot::refusal::{SVM, VMX};
    use vidar_core::linux::bzimage::BzImageError;

    use super::*;

    #[test]
    fn a_refusal_is_divided_into_what_is_wrong_and_what_to_do() {
        let parts = |refusal: Refusal| {
            let finding = Finding::from(refusal);
            (finding.text, finding.advice.unwrap_or_default())
        };
        assert_eq!(
            parts(Refusal::Missing { extension: SVM, what: vec!["nested paging"] }),
            ("this CPU's AMD-V lacks nested paging".into(), "use a machine with a newer CPU".into())
        );
        assert_eq!(
            parts(BzImageError::Damaged("its header promises no code").into()),
            ("the kernel is damaged: its header promises no code".into(), "copy the file again".into())
        );
        let (text, advice) = parts(Refusal::LockedOff(VMX));
        assert_eq!(text, "VT-x is switched off by the firmware");
        assert!(advice.starts_with("enable it in the firmware's setup (\"Intel Virtualization"), "{advice}");
    }

    #[test]
    fn lines_and_objects_name_the_check() {
        let finding = Finding::warning("it is \"so\"", "do that");
        assert_eq!(
            finding.line("memory"),
            "warning  memory           it is \"so\"\n                          -> do that\n"
        );
        assert_eq!(
            finding.json("memory"),
            "{\"id\":\"memory\",\"state\":\"warning\",\"text\":\"it is \\\"so\\\"\",\"advice\":\"do that\"}"
        );
        assert!(Finding::ok("fine").json("a").ends_with(",\"advice\":null}"));
    }
}
