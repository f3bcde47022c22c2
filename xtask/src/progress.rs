//! Tells what a long step is doing: a spinner with the seconds so far on a terminal, plain lines elsewhere.

use std::io::{IsTerminal, Write, stderr};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;

const FRAMES: [char; 4] = ['|', '/', '-', '\\'];

/// Runs `work`, saying `what` is going on.
pub fn step<T>(what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    if !stderr().is_terminal() {
        eprintln!("{what} ...");
        return work();
    }
    let begun = Instant::now();
    let (done, is_done) = mpsc::channel::<()>();
    let result = thread::scope(|scope| {
        scope.spawn(move || {
            for frame in FRAMES.iter().cycle() {
                eprint!("\r{frame} {what} ... {} s", begun.elapsed().as_secs());
                let _ = stderr().flush();
                if is_done.recv_timeout(Duration::from_millis(200)) != Err(RecvTimeoutError::Timeout) {
                    break;
                }
            }
        });
        let result = work();
        drop(done);
        result
    });
    let outcome = if result.is_ok() { "done" } else { "failed" };
    eprintln!("\r\x1b[K{what}: {outcome}, {:.1} s", begun.elapsed().as_secs_f64());
    result
}
