//! Runs the check of one parser with many inputs.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::env;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;
use std::time::Instant;

use proptest::test_runner::{Config, RngAlgorithm, RngSeed, TestCaseError, TestError, TestRunner};

use crate::corpus::Corpus;
use crate::{mutation, watch};

/// How many inputs each parser is given, if the environment says so.
const INPUTS: &str = "VIDAR_ROBUST_INPUTS";
/// How many it is given otherwise.
const DEFAULT_INPUTS: u32 = 2000;
/// Progress is printed after this many inputs, in runs that are long enough.
const PROGRESS: u32 = 100_000;

/// A parser under test.
#[derive(Clone, Copy)]
pub struct Target {
    /// The name of the parser, and of the folder with its corpus.
    pub name: &'static str,
    /// Parses the input and panics if the result is wrong.
    pub check: fn(&[u8]),
    /// Makes the fields true that a parser looks at first, such as the total size. It is applied to every other mutated
    /// input, since the parser would refuse nearly all of them early without it.
    pub mend: fn(&mut [u8]),
    /// Valid inputs that are recorded elsewhere.
    pub recorded: fn() -> Vec<Vec<u8>>,
}

impl Target {
    /// Returns a parser that checks no field first, and for which no inputs are recorded elsewhere.
    pub const fn new(name: &'static str, check: fn(&[u8])) -> Self {
        Self { name, check, mend: |_| (), recorded: Vec::new }
    }

    /// Tries the corpus, then as many new inputs as the environment asks for.
    pub fn run(self) {
        let corpus = Corpus::open(self.name);
        let seeds = corpus.read();
        for (name, seed) in &seeds {
            if let Err(reason) = self.attempt(seed) {
                panic!("{name}: {reason}");
            }
        }
        let seeds = seeds.into_iter().map(|(_, seed)| seed).chain((self.recorded)()).collect();
        if let Err((reason, input)) = self.run_new(seeds) {
            let kept = corpus.keep(&input, &reason);
            panic!("{}: {reason}\n{kept}", self.name);
        }
    }

    /// Tries new inputs. Returns why one failed, and the smallest that fails in the same way.
    fn run_new(self, seeds: Vec<Vec<u8>>) -> Result<(), (String, Vec<u8>)> {
        let inputs = env::var(INPUTS).map_or(DEFAULT_INPUTS, |text| text.parse().expect(INPUTS));
        let (begun, tried) = (Instant::now(), Cell::new(0));
        let speed = || f64::from(tried.get()) / begun.elapsed().as_secs_f64();
        let config = Config {
            cases: inputs,
            failure_persistence: None,
            max_shrink_iters: 20_000,
            rng_algorithm: RngAlgorithm::XorShift,
            rng_seed: RngSeed::Random,
            ..Config::default()
        };
        let outcome = TestRunner::new(config).run(&mutation::inputs(seeds, self.mend), |input| {
            tried.set(tried.get() + 1);
            if tried.get() % PROGRESS == 0 && tried.get() <= inputs {
                println!("{:<13} {:>8} of {inputs}, {:.0} a second", self.name, tried.get(), speed());
            }
            self.attempt(&input).map_err(TestCaseError::fail)
        });
        match outcome {
            Ok(()) => Ok(()),
            Err(TestError::Fail(reason, input)) => Err((reason.message().to_owned(), input)),
            Err(TestError::Abort(reason)) => panic!("{}: no inputs can be made: {reason}", self.name),
        }
    }

    /// Checks one input, and returns what the check panicked with.
    fn attempt(self, input: &[u8]) -> Result<(), String> {
        quiet_panics();
        let watched = watch::Watched::new(self.name, input);
        ATTEMPTING.set(true);
        let result = panic::catch_unwind(AssertUnwindSafe(|| (self.check)(input)));
        ATTEMPTING.set(false);
        drop(watched);
        result.map_err(|panic| format!("{} ({})", message(&*panic), PLACE.take()))
    }
}

thread_local! {
    static ATTEMPTING: Cell<bool> = const { Cell::new(false) };
    static PLACE: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Keeps panics of checks off the terminal, where the search for the smallest input would print thousands, and notes
/// their places.
fn quiet_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if ATTEMPTING.get() {
                let place = info.location().map_or_else(String::new, ToString::to_string);
                PLACE.with(|noted| noted.replace(place));
            } else {
                usual(info);
            }
        }));
    });
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without a message").to_owned()
}

/// Asserts that an iterator ends after at most `most` items, and returns these.
pub fn bounded<T>(items: impl Iterator<Item = T>, most: usize) -> Vec<T> {
    let items: Vec<_> = items.take(most + 1).collect();
    assert!(items.len() <= most, "more than {most} items");
    items
}

/// Asserts that `part` lies within `whole` in memory.
pub fn assert_within(part: &[u8], whole: &[u8]) {
    let (part, whole) = (part.as_ptr_range(), whole.as_ptr_range());
    let inside = whole.start <= part.start && part.end <= whole.end;
    assert!(inside || part.is_empty(), "the result lies outside of the input");
}
