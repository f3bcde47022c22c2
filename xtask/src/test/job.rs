//! Tests that share a machine, and what keeps them from being made.

use std::time::Instant;

use anyhow::Result;

use super::report::Report;
use crate::machine::abilities::Ability;
use crate::paths;

type Work<'a> = Box<dyn FnOnce() -> Result<()> + Send + 'a>;

/// Tests that run one after the other, in one machine or in none.
pub struct Job<'a> {
    /// The names of these tests, in their order.
    pub names: Vec<String>,
    /// What the emulators must be able to do for them; they are skipped otherwise.
    needs: Vec<Ability>,
    /// Why they are skipped whatever the emulators can do, if they are.
    pub left_out: Option<&'static str>,
    work: Work<'a>,
}

impl<'a> Job<'a> {
    /// Tests by these names, which `work` makes and reports.
    pub fn new(names: Vec<String>, work: impl FnOnce() -> Result<()> + Send + 'a) -> Self {
        Self { names, needs: Vec::new(), left_out: None, work: Box::new(work) }
    }

    /// The same, where the emulators can do what it `needs`.
    pub fn needing(self, needs: Vec<Ability>) -> Self {
        Self { needs, ..self }
    }

    /// The same, or skipped for this reason.
    pub fn left_out(self, why: Option<&'static str>) -> Self {
        Self { left_out: why, ..self }
    }

    /// Runs its tests, or says of each why it cannot be made here.
    pub fn run(self, report: &Report) {
        if let Some(why) = self.why_not() {
            return self.names.iter().for_each(|name| report.skip(name, &why));
        }
        let begun = Instant::now();
        if let Err(error) = (self.work)() {
            report.fail(&self.names[0], begun.elapsed(), &error, None);
        }
    }

    /// Why they cannot be made here, if they cannot, and which command makes them.
    fn why_not(&self) -> Option<String> {
        if let Some(why) = self.left_out {
            return Some(why.to_owned());
        }
        let (need, why) = self.needs.iter().find_map(|need| Some((need, need.missing()?)))?;
        let elsewhere = paths::suite().is_none() && need.is_in_trixie();
        Some(why + if elsewhere { "; `cargo xtask test --emulators trixie` runs it" } else { "" })
    }
}
