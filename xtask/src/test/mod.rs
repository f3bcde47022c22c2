//! `cargo xtask test`: the tests of the host, then those in emulators.

mod facts;
mod host;
mod linux;
mod report;
mod transparency;

use std::path::PathBuf;
use std::sync::Mutex;
use std::thread;
use std::time::Instant;

use anyhow::Result;

use self::linux::{Found, Side};
use self::report::Report;
use crate::{build, paths, setup};

/// Emulators that run at once, where there are CPUs for them.
const AT_ONCE: usize = 2;

/// What the machines' tests are made with.
#[derive(Debug)]
pub struct Tools {
    /// The hypervisor's image.
    pub hypervisor: PathBuf,
    /// The guest's tool.
    pub vidarctl: PathBuf,
}

type Work<'a> = Box<dyn FnOnce() -> Result<()> + Send + 'a>;

/// Tests that run one after the other, in one machine or in none.
struct Job<'a> {
    names: Vec<String>,
    work: Work<'a>,
}

/// Prints the names of all tests in machines.
pub fn list() {
    println!("host\ntidy");
    let tools = Tools { hypervisor: paths::hypervisor(), vidarctl: paths::vidarctl() };
    let (found, report) = (Found::default(), Report::default());
    let jobs = jobs(&tools, &found, &report);
    let names = jobs.iter().flat_map(|job| job.names.iter().cloned()).chain(linux::comparison_names());
    names.for_each(|name| println!("{name}"));
}

/// Runs all tests, or those whose name contains `filter` with what they build on.
pub fn run(filter: Option<&str>) -> Result<()> {
    let report = Report::default();
    host::run(filter, &report)?;

    let wanted =
        |names: &[String]| filter.is_none_or(|filter| names.iter().any(|name| name.contains(filter)));
    let comparisons = wanted(&linux::comparison_names());
    setup::tools()?;
    let built = build::all()?;
    let tools = Tools { hypervisor: built.hypervisor, vidarctl: built.vidarctl };
    let found = Found::default();
    let is_journey = |job: &Job| job.names.iter().any(|name| name.starts_with("linux/"));
    let mut queue: Vec<_> = jobs(&tools, &found, &report);
    queue.retain(|job| wanted(&job.names) || (comparisons && is_journey(job)));
    let at_once = thread::available_parallelism().map_or(1, usize::from).min(AT_ONCE);
    // The longest come first in the list, and are taken from the end of the queue.
    queue.reverse();
    let queue = Mutex::new(queue);
    let next = || queue.lock().expect("nobody panics with it").pop();
    thread::scope(|scope| {
        for _ in 0..at_once {
            scope.spawn(|| {
                while let Some(Job { names, work }) = next() {
                    let begun = Instant::now();
                    if let Err(error) = work() {
                        report.fail(&names[0], begun.elapsed(), &error, None);
                    }
                }
            });
        }
    });
    if comparisons {
        linux::compare(&found, &report)?;
    }
    report.finish()
}

/// The table of what runs in machines, the longest first.
fn jobs<'a>(tools: &'a Tools, found: &'a Found, report: &'a Report) -> Vec<Job<'a>> {
    let journey = |side| Job {
        names: linux::journey_names(side),
        work: Box::new(move || linux::journey(side, tools, found, report)),
    };
    vec![journey(Side::Vidar), journey(Side::Bare)]
}

/// An empty folder for the test `name`.
fn test_dir(name: &str) -> Result<PathBuf> {
    let dir = paths::machines().join(format!("test-{name}"));
    if dir.exists() {
        std::fs::remove_dir_all(&dir)?;
    }
    paths::ensure(dir)
}
