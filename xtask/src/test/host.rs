//! The tests that run on the host: `cargo test`, and the project's own rules.

use std::process::Stdio;
use std::time::Instant;

use super::report::Report;
use crate::{build, tidy};

/// The name under which the results of `cargo test` are reported.
pub const NAME: &str = "host";

/// Runs all of these tests, or those whose names contain `filter`.
pub fn run(filter: Option<&str>, report: &Report) {
    let begun = Instant::now();
    if filter.is_none_or(may_name_a_host_test) {
        let results = results(filter.filter(|filter| *filter != NAME));
        if results.passed + results.failed.len() > 0 {
            report.add(NAME, begun.elapsed(), results.passed, &results.failed);
        }
    }

    let begun = Instant::now();
    if filter.is_none_or(|filter| "tidy".contains(filter)) {
        report.result("tidy", begun, tidy::run(), None);
    }
}

/// Returns false if no test of the host has a name with `filter` in it, so that they need not be built: their names are
/// Rust's paths, which have no slash and no hyphen, as those of the tests in machines have.
fn may_name_a_host_test(filter: &str) -> bool {
    !filter.contains(['/', '-'])
}

/// Runs `cargo test`. Its output is printed only if a test failed.
fn results(filter: Option<&str>) -> Results {
    let mut command = build::cargo_command(&["test", "--no-fail-fast", "--tests"]);
    command.args(filter);
    let output = match command.stdin(Stdio::null()).stderr(Stdio::inherit()).output() {
        Ok(output) => output,
        Err(error) => return Results { passed: 0, failed: vec![format!("cargo test cannot run: {error}")] },
    };
    let text = String::from_utf8_lossy(&output.stdout);
    let mut results = read(&text);
    if !results.failed.is_empty() {
        print!("{text}");
    } else if !output.status.success() {
        // cargo has printed the reason. As a rule, the tests cannot be built.
        results.failed.push(format!("cargo test ({})", output.status));
    }
    results
}

struct Results {
    passed: usize,
    failed: Vec<String>,
}

/// Reads the output of Rust's test programs. Each prints first how many tests it will run, and at the end its result. A
/// program that dies in between counts as a failed test.
fn read(text: &str) -> Results {
    let mut results = Results { passed: 0, failed: Vec::new() };
    let mut running = None;
    let died = |tests| format!("a test program died while it ran its {tests}; cargo has said which");
    for line in text.lines() {
        if let Some(tests) = line.strip_prefix("running ") {
            results.failed.extend(running.replace(tests).map(died));
        }
        if let Some(name) = line.strip_prefix("test ").and_then(|line| line.strip_suffix(" ... FAILED")) {
            results.failed.push(name.to_owned());
        }
        if let Some((_, counts)) = line.split_once("test result: ") {
            running = None;
            let passed = counts.split([' ', '.', ';']).zip(counts.split([' ', '.', ';']).skip(1));
            let passed = passed.into_iter().find(|(_, word)| *word == "passed");
            results.passed += passed.and_then(|(count, _)| count.parse::<usize>().ok()).unwrap_or(0);
        }
    }
    results.failed.extend(running.map(died));
    results
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_for_machines_builds_no_tests_of_the_host() {
        assert!(["amd-v", "vt-x/probe", "a/b"].iter().all(|filter| !may_name_a_host_test(filter)));
        assert!([NAME, "tidy", "mem::walk", "probe"].into_iter().all(may_name_a_host_test));
    }

    #[test]
    fn results_are_read_from_the_output_of_the_tests() {
        let text = "running 2 tests\ntest a::b ... ok\ntest a::c ... FAILED\n\n\
            test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s\n\
            running 7 tests\ntest result: ok. 7 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out\n";
        let results = read(text);
        assert_eq!(results.passed, 8);
        assert_eq!(results.failed, ["a::c"]);
    }

    #[test]
    fn a_program_that_dies_counts_as_a_failure() {
        let dead = "running 2 tests\ntest a::b ... ok\n";
        let alive = "running 1 test\ntest a::c ... ok\n\ntest result: ok. 1 passed; 0 failed; 0 ignored\n";
        let all = |text: &str| {
            let Results { passed, failed } = read(text);
            (passed, failed.len())
        };
        assert_eq!(all(alive), (1, 0));
        assert_eq!(all(dead), (0, 1));
        assert_eq!(all(&[dead, alive].concat()), (1, 1));
        assert_eq!(all(&[alive, dead, dead, alive].concat()), (2, 2));
        assert!(read(dead).failed[0].contains("2 tests"));
    }
}
