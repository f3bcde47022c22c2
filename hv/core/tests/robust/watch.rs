//! Names the input that a parser does not return from. Without this, a test program would hang and not say which input
//! it was.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, Once};
use std::time::Duration;
use std::{fs, process, thread};

use crate::corpus::Corpus;

/// The CPU time after which an input counts as endless, in ticks of the kernel: ten seconds. A busy machine does not
/// matter, since it is not time on the clock.
const FOR_EVER: u64 = 1000;

/// An input that is being parsed.
struct Current {
    number: u64,
    thread: String,
    target: &'static str,
    input: Vec<u8>,
}

static CURRENT: Mutex<Vec<Current>> = Mutex::new(Vec::new());
static NUMBER: AtomicU64 = AtomicU64::new(0);

/// An input is watched while this exists.
pub struct Watched(u64);

impl Watched {
    /// Begins to watch the input of this thread.
    pub fn new(target: &'static str, input: &[u8]) -> Self {
        static ONCE: Once = Once::new();
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        // Miri has neither /proc nor CPU time.
        if !cfg!(miri) {
            ONCE.call_once(|| drop(thread::spawn(watch)));
            let thread = THREAD.with(Clone::clone);
            CURRENT.lock().unwrap().push(Current { number, thread, target, input: input.to_vec() });
        }
        Self(number)
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        CURRENT.lock().unwrap().retain(|current| current.number != self.0);
    }
}

thread_local! {
    /// The folder of this thread in /proc.
    static THREAD: String = {
        let link = fs::read_link("/proc/thread-self").expect("Linux has /proc");
        format!("/proc/{}", link.display())
    };
}

/// Looks at the inputs now and then, and ends the program if the same one has taken too much CPU time.
fn watch() {
    let mut seen: Vec<(u64, u64)> = Vec::new();
    loop {
        thread::sleep(Duration::from_secs(2));
        let current = CURRENT.lock().unwrap();
        let used = |one: &Current| cpu_time(&one.thread).unwrap_or(0);
        let before = seen;
        seen = current
            .iter()
            .map(|one| {
                let since = before.iter().find(|(number, _)| *number == one.number);
                (one.number, since.map_or_else(|| used(one), |(_, since)| *since))
            })
            .collect();
        for (one, (_, since)) in current.iter().zip(&seen) {
            if used(one).saturating_sub(*since) > FOR_EVER {
                let kept = Corpus::open(one.target).keep(&one.input, "the parser does not come to an end");
                eprintln!("{}: the parser does not come to an end\n{kept}", one.target);
                process::abort();
            }
        }
    }
}

/// Returns the CPU time of a thread in ticks: fields 14 and 15 of its `stat`, of which the second is in parentheses.
/// Linux, Documentation/filesystems/proc.rst, table 1-4.
fn cpu_time(thread: &str) -> Option<u64> {
    let stat = fs::read_to_string(format!("{thread}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11).take(2).map(str::parse::<u64>);
    Some(fields.next()?.ok()? + fields.next()?.ok()?)
}
