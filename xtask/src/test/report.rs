//! What tests came to: a line for each as it ends, and the count at the end.

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Error, Result};

use crate::paths;

/// Lines of the serial log that are shown of a test that failed.
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
    /// A test passed.
    pub fn pass(&self, name: &str, time: Duration) {
        self.passed.fetch_add(1, Ordering::Relaxed);
        self.line(&format!("ok      {}  {:.1} s", shown(name), time.as_secs_f64()));
    }

    /// A test failed; `log` is the serial log that shows how, if there is one.
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

    /// A test cannot be made here, for the reason `why`; it counts as neither passed nor failed.
    pub fn skip(&self, name: &str, why: &str) {
        self.skipped.fetch_add(1, Ordering::Relaxed);
        self.line(&skipped(name, why));
    }

    /// A test came to `result`.
    pub fn result(&self, name: &str, begun: Instant, result: Result<()>, log: Option<&Path>) {
        match result {
            Ok(()) => self.pass(name, begun.elapsed()),
            Err(error) => self.fail(name, begun.elapsed(), &error, log),
        }
    }

    /// Tests that ran elsewhere.
    pub fn add(&self, name: &str, time: Duration, passed: usize, failed: &[String]) {
        self.passed.fetch_add(passed, Ordering::Relaxed);
        self.failed.fetch_add(failed.len(), Ordering::Relaxed);
        let verdict = if failed.is_empty() { "ok    " } else { "FAILED" };
        self.line(&format!("{verdict}  {name}: {passed} tests  {:.1} s", time.as_secs_f64()));
        for test in failed {
            self.line(&format!("        FAILED  {test}"));
        }
    }

    /// Prints the count as the last line of all; whether tests ran and none failed.
    pub fn finish(&self) -> bool {
        let (passed, failed) = (self.passed.load(Ordering::Relaxed), self.failed.load(Ordering::Relaxed));
        let skipped = self.skipped.load(Ordering::Relaxed);
        if skipped > 0 {
            println!("{skipped} skipped, for the reasons above");
        } else if passed + failed == 0 {
            println!("No test has such a name.");
        }
        println!("{passed} passed, {failed} failed");
        passed > 0 && failed == 0
    }

    fn line(&self, text: &str) {
        let _one_at_a_time = self.printing.lock();
        println!("{text}");
    }
}

/// The name of a test as people see it: with the suite whose emulators it runs in, if they are not this system's.
pub fn shown(name: &str) -> String {
    paths::suite().map_or_else(|| name.to_owned(), |suite| format!("{suite}:{name}"))
}

/// The line of a test that is skipped.
pub fn skipped(name: &str, why: &str) -> String {
    format!("skipped {}: {why}", shown(name))
}

/// The last lines, free of what moves a terminal's cursor.
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
    fn one_failure_fails_the_whole() {
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
    fn the_tail_is_short_and_clean() {
        let log: String = (0..100).map(|number| format!("\x1b[mline {number}\r\n\r\n")).collect();
        let lines = tail(&log);
        assert_eq!(lines.len(), TAIL);
        assert_eq!(lines[TAIL - 1], "[mline 99");
    }
}
