//! Reports the results of tests: a line for each test as it ends, and the counts at the end.

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Error, Result, anyhow};

use crate::paths;

/// The number of lines of the serial log that are shown for a test that failed.
const TAIL: usize = 20;

/// Collects results from all threads.
#[derive(Debug, Default)]
pub struct Report {
    passed: AtomicUsize,
    failed: AtomicUsize,
    skipped: AtomicUsize,
    printing: Mutex<()>,
}

impl Report {
    /// Reports a test that passed.
    pub fn pass(&self, name: &str, time: Duration) {
        self.passed.fetch_add(1, Ordering::Relaxed);
        self.line(&format!("ok      {}  {:.1} s", shown(name), time.as_secs_f64()));
    }

    /// Reports a test that failed. `log` is its serial log, if it has one.
    pub fn fail(&self, name: &str, time: Duration, error: &Error, log: Option<&Path>) {
        self.failed.fetch_add(1, Ordering::Relaxed);
        let mut text = format!("FAILED  {}  {:.1} s\n        {error:#}", shown(name), time.as_secs_f64());
        if let Some(log) = log {
            let content = std::fs::read(log).unwrap_or_default();
            for line in tail(&String::from_utf8_lossy(&content)) {
                text += &format!("\n        | {line}");
            }
            text += &format!("\n        the whole log: {}", log.display());
        }
        self.line(&text);
    }

    /// Reports a test that cannot run here, for the reason `why`. It counts neither as passed nor as failed.
    pub fn skip(&self, name: &str, why: &str) {
        self.skipped.fetch_add(1, Ordering::Relaxed);
        self.line(&skipped(name, why));
    }

    /// Reports a test that passed or failed, by its `result`.
    pub fn result(&self, name: &str, begun: Instant, result: Result<()>, log: Option<&Path>) {
        match result {
            Ok(()) => self.pass(name, begun.elapsed()),
            Err(error) => self.fail(name, begun.elapsed(), &error, log),
        }
    }

    /// Takes the steps of a machine, each of which is a test with a name. After the first that fails the others are
    /// reported as not reached. The first test's time is counted from `begun`, and `log` is the machine's serial log,
    /// if it has one. Returns true if all passed.
    pub fn steps<M>(
        &self,
        machine: &mut M,
        steps: impl IntoIterator<Item = (String, fn(&mut M) -> Result<()>)>,
        mut begun: Instant,
        log: Option<&Path>,
    ) -> bool {
        let mut passed = true;
        for (name, step) in steps {
            let (result, log) =
                if passed { (step(machine), log) } else { (Err(anyhow!("not reached")), None) };
            passed &= result.is_ok();
            self.result(&name, begun, result, log);
            begun = Instant::now();
        }
        passed
    }

    /// Reports several tests that another program has run.
    pub fn add(&self, name: &str, time: Duration, passed: usize, failed: &[String]) {
        self.passed.fetch_add(passed, Ordering::Relaxed);
        self.failed.fetch_add(failed.len(), Ordering::Relaxed);
        let verdict = if failed.is_empty() { "ok    " } else { "FAILED" };
        self.line(&format!("{verdict}  {name}: {passed} tests  {:.1} s", time.as_secs_f64()));
        for test in failed {
            self.line(&format!("        FAILED  {test}"));
        }
    }

    /// Prints the counts as the last line. Returns true if at least one test passed and none failed.
    pub fn finish(&self) -> bool {
        let (passed, failed) = (self.passed.load(Ordering::Relaxed), self.failed.load(Ordering::Relaxed));
        let skipped = self.skipped.load(Ordering::Relaxed);
        if skipped > 0 {
            println!("{skipped} skipped, for the reasons above");
        } else if passed + failed == 0 {
            println!("No test has a matching name.");
        }
        println!("{passed} passed, {failed} failed");
        passed > 0 && failed == 0
    }

    fn line(&self, text: &str) {
        let _one_at_a_time = self.printing.lock();
        println!("{text}");
    }
}

/// Returns the name of a test as it is shown. If the emulators are those of another suite, the suite comes first.
pub fn shown(name: &str) -> String {
    paths::suite().map_or_else(|| name.to_owned(), |suite| format!("{suite}:{name}"))
}

/// Returns the line that is printed for a test that is skipped.
pub fn skipped(name: &str, why: &str) -> String {
    format!("skipped {}: {why}", shown(name))
}

/// Returns the last lines of a log, without control characters.
fn tail(log: &str) -> Vec<String> {
    let lines: Vec<&str> = log.lines().filter(|line| !line.trim().is_empty()).collect();
    let clean = |line: &&str| {
        let line: String = line.chars().filter(|c| !c.is_control()).collect();
        line.chars().take(160).collect()
    };
    lines[lines.len().saturating_sub(TAIL)..].iter().map(clean).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_failure_fails_the_whole_run() {
        let report = Report::default();
        assert!(!report.finish(), "no test ran");
        report.pass("a", Duration::ZERO);
        assert!(report.finish());
        report.add("host", Duration::ZERO, 3, &["x::y".to_owned()]);
        assert!(!report.finish());
        assert_eq!((report.passed.into_inner(), report.failed.into_inner()), (4, 1));
        assert_eq!(report.skipped.into_inner(), 0);
    }

    #[test]
    fn no_step_is_taken_after_one_that_fails() {
        let report = Report::default();
        let step: fn(&mut Vec<u32>) -> Result<()> = |taken| {
            taken.push(1);
            if taken.len() == 2 { Err(anyhow!("the second step")) } else { Ok(()) }
        };
        let mut taken = Vec::new();
        let steps = |count| (0..count).map(move |number| (format!("step {number}"), step));
        assert!(!report.steps(&mut taken, steps(4), Instant::now(), None));
        assert_eq!(taken.len(), 2);
        assert_eq!((report.passed.load(Ordering::Relaxed), report.failed.load(Ordering::Relaxed)), (1, 3));
        assert!(report.steps(&mut Vec::new(), steps(1), Instant::now(), None));
    }

    #[test]
    fn the_tail_is_short_and_clean() {
        let log: String = (0..100).map(|number| format!("\x1b[mline {number}\r\n\r\n")).collect();
        let lines = tail(&log);
        assert_eq!(lines.len(), TAIL);
        assert_eq!(lines[TAIL - 1], "[mline 99");
    }
}
