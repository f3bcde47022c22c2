//! Tests that share a machine, and the reasons for which they are skipped.

use std::time::Instant;

use anyhow::Result;

use super::report::Report;
use crate::machine::abilities::Ability;
use crate::paths;

type Work<'a> = Box<dyn FnOnce() -> Result<()> + Send + 'a>;

/// Tests that run one after the other, in one machine or in none.
pub struct Job<'a> {
    /// The names of the tests, in their order.
    pub names: Vec<String>,
    /// What the emulators must be able to do. Otherwise the tests are skipped.
    needs: Vec<Ability>,
    /// The reason for which the tests are skipped whatever the emulators can do, if there is one.
    pub left_out: Option<&'static str>,
    work: Work<'a>,
}

impl<'a> Job<'a> {
    /// Tests with these names, which `work` runs and reports.
    pub fn new(names: Vec<String>, work: impl FnOnce() -> Result<()> + Send + 'a) -> Self {
        Self { names, needs: Vec::new(), left_out: None, work: Box::new(work) }
    }

    /// Returns the same tests, skipped if the emulators lack one of these abilities.
    pub fn needing(self, needs: Vec<Ability>) -> Self {
        Self { needs, ..self }
    }

    /// Returns the same tests, skipped if there is a reason.
    pub fn left_out(self, why: Option<&'static str>) -> Self {
        Self { left_out: why, ..self }
    }

    /// Runs the tests, or reports why they are skipped.
    pub fn run(self, report: &Report) {
        if let Some(why) = self.why_not() {
            return self.names.iter().for_each(|name| report.skip(name, &why));
        }
        let begun = Instant::now();
        if let Err(error) = (self.work)() {
            report.fail(&self.names[0], begun.elapsed(), &error, None);
        }
    }

    /// Returns the reason why the tests are skipped, if they are, with the command that runs them.
    fn why_not(&self) -> Option<String> {
        if let Some(why) = self.left_out {
            return Some(why.to_owned());
        }
        let (need, why) = self.needs.iter().find_map(|need| Some((need, need.missing()?)))?;
        let elsewhere = paths::suite().is_none() && need.is_in_trixie();
        Some(why + if elsewhere { "; `cargo xtask test --emulators trixie` runs it" } else { "" })
    }
}
