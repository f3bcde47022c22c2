//! What follows from all findings.

use super::finding::{Finding, State};
use crate::json::string;

/// What follows for the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    UnderVidar,
    CanRun,
    CannotRun,
    Unknown,
}

/// The findings, and what follows from them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    outcome: Outcome,
    findings: Vec<(&'static str, Finding)>,
}

impl Verdict {
    /// Returns the verdict on a machine on which Vidar runs.
    pub fn under_vidar(findings: Vec<(&'static str, Finding)>) -> Self {
        Self { outcome: Outcome::UnderVidar, findings }
    }

    /// Returns the verdict on a machine on which Vidar does not run. `worst` is the worst state of what decides.
    pub fn bare(worst: State, findings: Vec<(&'static str, Finding)>) -> Self {
        let outcome = match worst {
            State::Ok | State::Warning => Outcome::CanRun,
            State::Unknown => Outcome::Unknown,
            State::Problem => Outcome::CannotRun,
        };
        Self { outcome, findings }
    }

    /// Returns the exit status of the program, which `--help` explains.
    pub fn exit_status(&self) -> u8 {
        match self.outcome {
            Outcome::UnderVidar | Outcome::CanRun => 0,
            Outcome::CannotRun => 1,
            Outcome::Unknown => 3,
        }
    }

    /// Formats the findings and the verdict for people.
    pub fn text(&self) -> String {
        let lines: String = self.findings.iter().map(|(id, finding)| finding.line(id)).collect();
        let last = match self.outcome {
            Outcome::UnderVidar => "this Linux runs under Vidar",
            Outcome::CanRun => "this machine can run Vidar",
            Outcome::CannotRun => "this machine cannot run Vidar as it is: see the lines marked problem",
            Outcome::Unknown => {
                "it is not known yet whether this machine can run Vidar: see the lines marked unknown"
            }
        };
        format!("{lines}\n{last}\n")
    }

    /// Formats the findings and the verdict as JSON.
    pub fn json(&self) -> String {
        let word = match self.outcome {
            Outcome::UnderVidar => "under-vidar",
            Outcome::CanRun => "can-run",
            Outcome::CannotRun => "cannot-run",
            Outcome::Unknown => "unknown",
        };
        let findings: Vec<_> = self.findings.iter().map(|(id, finding)| finding.json(id)).collect();
        format!("{{\"verdict\":{},\"checks\":[{}]}}\n", string(word), findings.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_and_statuses_follow_the_worst_state() {
        let of = |worst| Verdict::bare(worst, vec![("cpu", Finding::ok("it is fine"))]);
        assert_eq!(
            of(State::Warning).text(),
            "ok       cpu              it is fine\n\nthis machine can run Vidar\n"
        );
        assert_eq!(
            of(State::Ok).json(),
            "{\"verdict\":\"can-run\",\"checks\":[{\"id\":\"cpu\",\"state\":\"ok\",\"text\":\"it is fine\",\"advice\":null}]}\n"
        );
        let all = [State::Ok, State::Warning, State::Unknown, State::Problem];
        assert_eq!(all.map(|worst| of(worst).exit_status()), [0, 0, 3, 1]);
        let guest = Verdict::under_vidar(Vec::new());
        assert_eq!((guest.exit_status(), guest.text().trim()), (0, "this Linux runs under Vidar"));
    }
}
