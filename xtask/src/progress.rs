//! Shows the progress of long steps. On a terminal this is a spinner with the seconds so far, or the number of bytes
//! that are done; elsewhere it is a line for each step.

use std::io::{IsTerminal, Write, stderr};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;

const FRAMES: [char; 4] = ['|', '/', '-', '\\'];

/// Runs `work` and shows its progress. `what` describes the step.
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

/// Runs `work` and shows its progress in bytes. `what` describes the step. `work` calls its argument with the number of
/// bytes that are done, of `total`.
pub fn bytes<T>(what: &str, total: u64, work: impl FnOnce(&mut dyn FnMut(u64)) -> Result<T>) -> Result<T> {
    let begun = Instant::now();
    if !stderr().is_terminal() {
        eprintln!("{what} ...");
        return work(&mut |_| {});
    }
    let mut shown = None;
    let show = |done: u64, shown: &mut Option<Instant>| {
        if shown.is_none_or(|last| last.elapsed() > Duration::from_millis(200)) {
            eprint!("\r\x1b[K{what} ... {}", so_far(done, total, begun.elapsed()));
            let _ = stderr().flush();
            *shown = Some(Instant::now());
        }
    };
    show(0, &mut shown);
    let result = work(&mut |done| show(done, &mut shown));
    let outcome = if result.is_ok() { "done" } else { "failed" };
    eprintln!("\r\x1b[K{what}: {outcome}, {:.1} s", begun.elapsed().as_secs_f64());
    result
}

/// Formats how far a copy is, and how fast.
fn so_far(done: u64, total: u64, time: Duration) -> String {
    let percent = u128::from(done) * 100 / u128::from(total.max(1));
    let [mib_done, mib] = [done, total].map(|bytes| bytes >> 20);
    let speed = done as f64 / f64::from(1 << 20) / time.as_secs_f64().max(0.001);
    format!("{percent} %, {mib_done} of {mib} MiB, {speed:.1} MiB/s")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_has_a_share_and_a_speed() {
        let mib = 1 << 20;
        assert_eq!(so_far(0, 36 * mib, Duration::ZERO), "0 %, 0 of 36 MiB, 0.0 MiB/s");
        assert_eq!(so_far(12 * mib, 36 * mib, Duration::from_secs(8)), "33 %, 12 of 36 MiB, 1.5 MiB/s");
        assert_eq!(so_far(36 * mib, 36 * mib, Duration::from_secs(8)), "100 %, 36 of 36 MiB, 4.5 MiB/s");
    }
}
