//! The tests that need no machine: `cargo test` and the project's own rules.

use std::env;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use super::report::Report;
use crate::{paths, tidy};

/// Runs them all, or those whose names contain `filter`.
pub fn run(filter: Option<&str>, report: &Report) -> Result<()> {
    let begun = Instant::now();
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["test", "--no-fail-fast", "--tests"]).args(filter).current_dir(paths::root());
    let output =
        command.stdin(Stdio::null()).stderr(Stdio::inherit()).output().context("cannot run cargo test")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let results = read(&text);
    if !results.failed.is_empty() {
        print!("{text}");
    }
    ensure!(output.status.success() || !results.failed.is_empty(), "the host tests cannot be built");
    if results.passed + results.failed.len() > 0 {
        report.add("host", begun.elapsed(), results.passed, &results.failed);
    }

    let begun = Instant::now();
    if filter.is_none_or(|filter| "tidy".contains(filter)) {
        match tidy::run() {
            Ok(()) => report.pass("tidy", begun.elapsed()),
            Err(error) => report.fail("tidy", begun.elapsed(), &error, None),
        }
    }
    Ok(())
}

struct Results {
    passed: usize,
    failed: Vec<String>,
}

/// Reads what Rust's test programs print.
fn read(text: &str) -> Results {
    let mut results = Results { passed: 0, failed: Vec::new() };
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("test ").and_then(|line| line.strip_suffix(" ... FAILED")) {
            results.failed.push(name.to_owned());
        }
        if let Some((_, counts)) = line.split_once("test result: ") {
            let passed = counts.split([' ', '.', ';']).zip(counts.split([' ', '.', ';']).skip(1));
            let passed = passed.into_iter().find(|(_, word)| *word == "passed");
            results.passed += passed.and_then(|(count, _)| count.parse::<usize>().ok()).unwrap_or(0);
        }
    }
    results
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_read_from_what_the_tests_print() {
        let text = "running 2 tests\ntest a::b ... ok\ntest a::c ... FAILED\n\n\
            test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s\n\
            running 7 tests\ntest result: ok. 7 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out\n";
        let results = read(text);
        assert_eq!(results.passed, 8);
        assert_eq!(results.failed, ["a::c"]);
    }
}
