//! One attempt of the trial: what Vidar's tables and the emulator say of a state that has been changed on purpose.

use std::fmt;

use anyhow::{Context, Result};

/// What the emulator did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// It lacks a field of the VMCS that the case writes, so it was not asked.
    Lacks,
    /// It entered the guest.
    Entered,
    /// It refused to enter the guest, for what has this initial in the numbers of the rules: `C` and `H` are
    /// VM-instruction errors 7 and 8, `G` and `M` the exit reasons 33 and 34, and `A` is VMEXIT_INVALID.
    Refused(char),
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lacks => f.write_str("lacks a field"),
            Self::Entered => f.write_str("enters"),
            Self::Refused(initial) => write!(f, "refuses, as by a rule {initial}"),
        }
    }
}

/// One attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// The rule that the case breaks, or what it does if it breaks none. A number follows if there are several cases of
    /// a rule.
    pub what: String,
    /// The rule that the case breaks, or `None`.
    pub rule: Option<String>,
    /// The rules that are broken by Vidar's tables.
    pub broken: Vec<String>,
    /// What the emulator did.
    pub answer: Answer,
}

impl Attempt {
    /// Returns true if the case breaks its rule alone. On a CPU that lacks what it turns on, it breaks others as well.
    pub fn is_alone(&self) -> bool {
        self.rule.as_ref().is_some_and(|rule| self.broken == [rule.as_str()])
    }

    /// Returns true if the tables and the emulator agree: what breaks a rule is refused in the way of the rule that is
    /// checked first, and nothing else is refused.
    pub fn agrees(&self) -> bool {
        match self.answer {
            Answer::Lacks => true,
            Answer::Entered => self.broken.is_empty(),
            // Controls and the host's state are checked in any order, and the guest's state after them.
            Answer::Refused('C' | 'H') => self.broken.iter().any(|rule| rule.starts_with(['C', 'H'])),
            Answer::Refused(initial) => {
                self.broken.iter().any(|rule| rule.starts_with(initial))
                    && !self.broken.iter().any(|rule| rule.starts_with(['C', 'H']))
            }
        }
    }
}

/// Returns the attempts of a trial from what Vidar has said.
pub fn parse(said: &str) -> Result<Vec<Attempt>> {
    let mut attempts: Vec<Attempt> = Vec::new();
    for line in said.lines().filter_map(|line| line.strip_prefix("vidar: trial: ")) {
        let mut attempt =
            one(line).with_context(|| format!("a line of the trial is not understood: {line}"))?;
        let of_the_rule = |other: &&Attempt| other.rule.is_some() && other.rule == attempt.rule;
        let before = attempts.iter().filter(of_the_rule).count();
        if before > 0 {
            attempt.what += &format!(", {}", before + 1);
        }
        attempts.push(attempt);
    }
    Ok(attempts)
}

fn one(line: &str) -> Option<Attempt> {
    let (what, rest) = line.split_once(": ")?;
    // The numbers of rules are a capital letter and digits.
    let is_rule = what.as_bytes().get(1).is_some_and(u8::is_ascii_digit);
    let rule = is_rule.then(|| what.to_owned());
    let what = what.to_owned();
    if rest.starts_with("the CPU has no field ") {
        return Some(Attempt { what, rule, broken: Vec::new(), answer: Answer::Lacks });
    }
    let (rules, answer) = rest.strip_prefix("rules")?.split_once("; ")?;
    let broken = rules.split_whitespace().map(str::to_owned).collect();
    let mut words = answer.split(&[' ', ','][..]);
    let answer = match (words.next()?, words.next()) {
        ("entered", _) => Answer::Entered,
        ("refused", None) => Answer::Refused('A'),
        ("error", Some("7")) => Answer::Refused('C'),
        ("error", Some("8")) => Answer::Refused('H'),
        ("exit", Some("33")) => Answer::Refused('G'),
        ("exit", Some("34")) => Answer::Refused('M'),
        _ => return None,
    };
    Some(Attempt { what, rule, broken, answer })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_understood() {
        let said = "vidar: trial: nothing: rules; entered, exit 52\r\nnoise\nvidar: trial: G43a: rules G43a; exit 33 0\r\n\
                    vidar: trial: G43a: rules; entered, exit 52\r\nvidar: trial: H5: the CPU has no field 0x2c04\r\n\
                    vidar: trial: C21: rules C3 C21; error 7\r\n";
        let attempts = parse(said).unwrap();
        let whats: Vec<_> = attempts.iter().map(|attempt| attempt.what.as_str()).collect();
        assert_eq!(whats, ["nothing", "G43a", "G43a, 2", "H5", "C21"]);
        let alone: Vec<_> = attempts.iter().map(Attempt::is_alone).collect();
        assert_eq!(alone, [false, true, false, false, false]);
        assert_eq!(attempts[4].broken, ["C3", "C21"]);
        assert!(attempts.iter().all(Attempt::agrees));
        assert!(parse("vidar: trial: G43a: rules; error 12").is_err());
    }

    #[test]
    fn the_emulator_agrees_if_it_refuses_what_breaks_a_rule_and_in_its_way() {
        let attempt = |broken: &[&str], answer| Attempt {
            what: "x".to_owned(),
            rule: None,
            broken: broken.iter().map(|rule| (*rule).to_owned()).collect(),
            answer,
        };
        assert!(attempt(&[], Answer::Entered).agrees());
        assert!(!attempt(&[], Answer::Refused('G')).agrees());
        assert!(!attempt(&["G1a"], Answer::Entered).agrees());
        assert!(attempt(&["G1a"], Answer::Refused('G')).agrees());
        assert!(!attempt(&["G1a"], Answer::Refused('C')).agrees());
        assert!(!attempt(&["C1", "G1a"], Answer::Refused('G')).agrees());
        assert!(attempt(&["C1", "G1a"], Answer::Refused('C')).agrees());
        assert!(attempt(&["A1"], Answer::Refused('A')).agrees());
    }
}
