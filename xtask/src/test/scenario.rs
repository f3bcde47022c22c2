//! Scenarios of the probe that share a machine: what is expected of each, and how the results on the bare machine and
//! under Vidar are compared.

use std::collections::HashMap;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};

use super::Tools;
use super::lane::Lane;
use super::report::Report;
use super::small::{self, GUEST, Small};
use crate::console::{ANSWER, BOOT};
use crate::grub::{self, Menu};

/// What is expected of a scenario under Vidar.
#[derive(Debug, Clone, Copy)]
pub enum Verdict {
    /// The same result as on the bare machine.
    AsBare,
    /// A result that contains these words, in any order.
    Words(&'static str),
    /// A result that contains these words. All words with other names must be the same as on the bare machine.
    AsBareBut(&'static str),
    /// An attack that has succeeded on the bare machine, by a result that contains the words of `bare`, and that has
    /// been refused under Vidar, by one that contains those of `refused`.
    Attack {
        /// The words on the bare machine.
        bare: &'static str,
        /// The words under Vidar.
        refused: &'static str,
    },
}

use Verdict::{AsBare, AsBareBut, Attack, Words};

/// The lanes for which a row of the table is.
#[derive(Debug, Clone, Copy)]
enum Where {
    Everywhere,
    /// This lane, and its variants with other CPU models.
    Lane(Lane),
    /// These lanes.
    Models(&'static [Lane]),
}

/// A scenario of the probe.
#[derive(Debug)]
pub struct Scenario {
    /// The probe's name for it.
    pub name: &'static str,
    verdict: Verdict,
    place: Where,
}

/// Returns a scenario for all lanes.
pub const fn scenario(name: &'static str, verdict: Verdict) -> Scenario {
    Scenario { name, verdict, place: Where::Everywhere }
}

/// Returns a scenario for one lane.
pub const fn only(lane: Lane, name: &'static str, verdict: Verdict) -> Scenario {
    Scenario { name, verdict, place: Where::Lane(lane) }
}

/// Returns a scenario for some CPU models.
pub const fn models(models: &'static [Lane], name: &'static str, verdict: Verdict) -> Scenario {
    Scenario { name, verdict, place: Where::Models(models) }
}

impl Scenario {
    /// Returns whether the scenario is for this lane, or `None` if it is for all lanes.
    pub fn is_in(&self, lane: Lane) -> Option<bool> {
        match self.place {
            Where::Everywhere => None,
            Where::Lane(only) => Some(only == lane.usual()),
            Where::Models(models) => Some(models.contains(&lane)),
        }
    }
}

/// A run of the probe, in which it runs several scenarios in one machine, once bare and once under Vidar.
#[derive(Debug)]
pub struct ProbeRun {
    /// The first part of the tests' names after the lane.
    pub name: &'static str,
    /// The lane of the machine.
    pub lane: Lane,
    /// The number of the machine's CPUs.
    pub cpus: u32,
    /// Vidar's boot options.
    pub options: &'static str,
    /// The scenarios in their order.
    pub scenarios: Vec<&'static Scenario>,
}

impl ProbeRun {
    /// Returns the names of the tests.
    pub fn names(&self) -> Vec<String> {
        let test = |scenario: &&Scenario| self.lane.test(&format!("{}/{}", self.name, scenario.name));
        self.scenarios.iter().map(test).collect()
    }

    /// Runs the scenarios bare and under Vidar, and compares.
    pub fn run(&self, tools: &Tools, report: &Report) -> Result<()> {
        let begun = Instant::now();
        let bare = self.answers("bare", &grub::bare(GUEST), tools);
        let vidar = self.answers("vidar", GUEST, tools);
        let log = small::log(&self.folder("vidar"));
        // A broken rule may have been broken in any scenario.
        let kept = |said: HashMap<String, String>| match self.rules().map(|rules| said.get(rules)) {
            Some(Some(broken)) if broken == NONE_BROKEN => Ok(said),
            Some(broken) => bail!("the check before each entry says {broken:?}"),
            None => Ok(said),
        };
        let (bare, vidar) = match (bare, vidar.and_then(kept)) {
            (Ok(bare), Ok(vidar)) => (bare, vidar),
            (Err(error), _) => return Err(error.context("the probe, bare")),
            (_, Err(error)) => {
                for name in self.names() {
                    report.fail(&name, begun.elapsed(), &anyhow::anyhow!("{error:#}"), Some(&log));
                }
                return Ok(());
            }
        };
        for (scenario, name) in self.scenarios.iter().zip(self.names()) {
            match judge(scenario, &bare, &vidar) {
                Ok(None) => report.pass(&name, begun.elapsed()),
                Ok(Some(lacks)) => report.skip(&name, &format!("{} has no {lacks}", self.lane.cpu_name())),
                Err(error) => {
                    let error = error.context(format!("see {}", log.display()));
                    report.fail(&name, begun.elapsed(), &error, None);
                }
            }
        }
        Ok(())
    }

    /// Returns the scenario that names the rules which have been broken, if Vidar checks them.
    fn rules(&self) -> Option<&'static str> {
        [self.options, grub::added_options()].iter().any(|options| options.contains(CHECK)).then_some(RULES)
    }

    fn folder(&self, side: &str) -> String {
        self.lane.folder(&format!("{}-{side}", self.name))
    }

    /// Runs the probe, and returns its result for each scenario.
    fn answers(&self, side: &str, entry: &str, tools: &Tools) -> Result<HashMap<String, String>> {
        let scenarios: Vec<_> =
            self.scenarios.iter().map(|scenario| scenario.name).chain(self.rules()).collect();
        let menu =
            Menu { default: Some(entry.to_owned()), options: self.options.to_owned(), ..Menu::default() };
        let mut booted = Small {
            name: self.folder(side),
            lane: self.lane,
            kernel: tools.probe()?.to_vec(),
            cmdline: format!("probe={}", scenarios.join(",")),
            menu,
            memory: 256,
            cpus: self.cpus,
            cpu: self.lane.cpu(),
            second_serial: self.options.contains("gdb="),
            ..Small::default()
        }
        .boot(tools)?;
        booted.console.expect("probe: hello", BOOT)?;
        let said = booted.console.expect("probe: done", ANSWER)?;
        let lines = said.lines().filter_map(|line| line.strip_prefix("probe ")?.split_once(": "));
        Ok(lines.map(|(name, result)| (name.to_owned(), result.trim().to_owned())).collect())
    }
}

/// The option with which Vidar checks the rules before each entry.
pub const CHECK: &str = "check=on";
/// The probe's scenario that names the rules which were broken, and its result if none was.
const RULES: &str = "rules";
const NONE_BROKEN: &str = "broken=none";

/// The probe's result for a name that it does not know.
const UNKNOWN: &str = "there is no such scenario";
/// What its result begins with if an exception ended the scenario early.
const ENDED: &str = "unexpected ";

/// Judges the probe's results for a scenario. If the CPU lacks what the scenario needs, the probe says so under Vidar
/// as well, and this returns what is lacking.
fn judge(
    scenario: &Scenario,
    bare: &HashMap<String, String>,
    vidar: &HashMap<String, String>,
) -> Result<Option<String>> {
    let vidar = vidar.get(scenario.name).context("the probe printed no result under Vidar")?;
    let bare = bare.get(scenario.name).context("the probe printed no result on the bare machine")?;
    // The same result on both sides would show nothing.
    ensure!(bare != UNKNOWN, "the probe has no such scenario");
    ensure!(!bare.starts_with(ENDED), "the scenario did not come to its end on the bare machine: {bare}");
    if let Some(lacks) = bare.strip_prefix("lacks=") {
        differences(bare, vidar, "")?;
        return Ok(Some(lacks.replace('-', " ")));
    }
    match scenario.verdict {
        AsBare => differences(bare, vidar, ""),
        Words(words) => contains(vidar, words),
        AsBareBut(words) => contains(vidar, words).and_then(|()| differences(bare, vidar, words)),
        Attack { bare: words, refused } => {
            contains(bare, words).context("on the bare machine")?;
            contains(vidar, refused)
        }
    }?;
    Ok(None)
}

/// Returns an error that names the words of `words` which are not in `said`.
pub fn contains(said: &str, words: &str) -> Result<()> {
    ensure!(!words.trim().is_empty(), "no words are expected");
    let there: Vec<_> = said.split_whitespace().collect();
    let missing: Vec<_> = words.split_whitespace().filter(|word| !there.contains(word)).collect();
    ensure!(missing.is_empty(), "{} should be in: {said}", missing.join(" "));
    Ok(())
}

/// Returns an error that names the words which differ. Words that have the name of a word in `but` are not compared.
fn differences(bare: &str, vidar: &str, but: &str) -> Result<()> {
    let kept = |said: &'_ str| -> Vec<String> {
        let name = |word: &'_ str| word.split('=').next().map(str::to_owned);
        let compared = |word: &&str| but.split_whitespace().all(|other| name(other) != name(word));
        said.split_whitespace().filter(compared).map(str::to_owned).collect()
    };
    let (bare, vidar) = (kept(bare), kept(vidar));
    if bare == vidar {
        return Ok(());
    }
    let different = bare.iter().zip(&vidar).filter(|(one, other)| one != other);
    let different: Vec<_> = different.map(|(one, other)| format!("{other} and not {one} as bare")).collect();
    if different.is_empty() {
        bail!("the result has {} words under Vidar, and {} on the bare machine", vidar.len(), bare.len());
    }
    bail!("{}", different.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(name: &str, said: &str) -> HashMap<String, String> {
        HashMap::from([(name.to_owned(), said.to_owned())])
    }

    #[test]
    fn a_difference_in_any_word_is_found() {
        let same = scenario("a", AsBare);
        assert!(judge(&same, &one("a", "x=1 y=2"), &one("a", "x=1 y=2")).is_ok());
        for vidar in ["x=1 y=3", "x=1", "x=1 y=2 z=3", "y=2 x=1", ""] {
            assert!(judge(&same, &one("a", "x=1 y=2"), &one("a", vidar)).is_err(), "{vidar}");
        }
        assert!(judge(&same, &one("b", ""), &one("a", "")).is_err());
        assert!(judge(&same, &one("a", ""), &one("b", "")).is_err());

        let lacks = judge(&same, &one("a", "lacks=such-a-thing"), &one("a", "lacks=such-a-thing")).unwrap();
        assert_eq!(lacks.as_deref(), Some("such a thing"));
        assert!(judge(&same, &one("a", "lacks=it"), &one("a", "x=1")).is_err());

        for nothing in [UNKNOWN, "unexpected #UD at 0x1234"] {
            assert!(judge(&same, &one("a", nothing), &one("a", nothing)).is_err(), "{nothing}");
        }

        let words = scenario("a", Words("x=1 z=3"));
        assert!(judge(&words, &one("a", ""), &one("a", "z=3 y=2 x=1")).is_ok());
        assert!(judge(&words, &one("a", ""), &one("a", "x=1 z=33")).is_err());

        let but = scenario("a", AsBareBut("v=0"));
        assert!(judge(&but, &one("a", "x=1 v=1"), &one("a", "x=1 v=0")).is_ok());
        assert!(judge(&but, &one("a", "x=1 v=1"), &one("a", "x=2 v=0")).is_err());
        assert!(judge(&but, &one("a", "x=1 v=1"), &one("a", "x=1 v=1")).is_err());

        let attack = scenario("a", Attack { bare: "x=1", refused: "x=0" });
        assert!(judge(&attack, &one("a", "x=1 y=2"), &one("a", "x=0")).is_ok());
        assert!(judge(&attack, &one("a", "x=1"), &one("a", "x=1")).is_err());
        assert!(judge(&attack, &one("a", "x=0"), &one("a", "x=0")).is_err());

        for nothing in [Words(""), AsBareBut(" "), Attack { bare: "", refused: "x=1" }] {
            assert!(judge(&scenario("a", nothing), &one("a", "x=1"), &one("a", "x=1")).is_err());
        }
    }
}
