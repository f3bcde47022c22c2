//! Puts load on a guest with several CPUs: page faults and TLB shootdowns, processes, timers, wake-ups from one CPU to
//! another, and a disk if there is one. All results are checked, and the steps are counted.
//!
//! `stress SECONDS [DISK]`, or `stress cpuid COUNT CPU`, which only executes CPUID so many times, or `stress msr INDEX
//! VALUE CPU`, which only writes an MSR, or `stress module FILE`, which only loads a kernel module

mod cpuid;
mod disk;
mod load;
mod module;
mod msr;
mod run;

use std::env;
use std::process::ExitCode;
use std::sync::atomic::AtomicU64;
use std::thread;
use std::time::Duration;

use crate::run::Run;

/// The work of a thread: runs until the end of the run, and counts its steps in `done`.
type Work = fn(&Run, cpu: usize, done: &AtomicU64) -> Result<(), String>;

/// The work of the threads of which there is one for each CPU, and the name of its count.
const ON_EACH: [(&str, Work); 4] =
    [("maps", load::map), ("moves", load::migrate), ("sleeps", load::sleep), ("wakes", load::wake)];

fn main() -> ExitCode {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let words: Vec<_> = arguments.iter().map(String::as_str).collect();
    let number = |word: &str| word.parse().ok();
    let result = match words[..] {
        ["cpuid", count, cpu] => {
            count.parse().ok().zip(number(cpu)).map(|(count, cpu)| cpuid::execute(count, cpu as usize))
        }
        ["msr", index, value, cpu] => {
            let hexadecimal = |word| u64::from_str_radix(word, 16).ok();
            let operands = hexadecimal(index).zip(hexadecimal(value)).zip(number(cpu));
            operands.map(|((index, value), cpu)| msr::write(index, value, cpu))
        }
        ["module", file] => Some(module::load(file)),
        [seconds, ref disk @ ..] if disk.len() <= 1 => number(seconds)
            .map(|seconds| run(Duration::from_secs(seconds), disk.first().map(|disk| (*disk).to_owned()))),
        _ => None,
    };
    let Some(result) = result else {
        eprintln!(
            "usage: stress SECONDS [DISK], or stress cpuid COUNT CPU, or stress msr INDEX VALUE CPU, or stress module FILE"
        );
        return ExitCode::from(2);
    };
    match result {
        Ok(counts) => {
            println!("stress: {counts}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("stress: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(time: Duration, disk: Option<String>) -> Result<String, String> {
    let cpus = thread::available_parallelism().map_or(1, usize::from);
    let run = Run::default();
    let counts: [AtomicU64; ON_EACH.len()] = Default::default();
    let (processes, blocks) = (AtomicU64::new(0), AtomicU64::new(0));
    thread::scope(|scope| {
        let mut threads = Vec::new();
        for ((_, work), done) in ON_EACH.into_iter().zip(&counts) {
            let run = &run;
            threads.extend((0..cpus).map(|cpu| scope.spawn(move || work(run, cpu, done))));
        }
        threads.push(scope.spawn(|| load::spawn(&run, &processes)));
        if let Some(path) = &disk {
            threads.push(scope.spawn(|| disk::write_and_read(&run, path, &blocks)));
        }
        thread::sleep(time);
        run.end();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().map_err(|_| "a thread panicked".to_owned())?)
    })?;
    let mut text = format!("cpus={cpus} processes={}", processes.into_inner());
    for ((name, _), done) in ON_EACH.into_iter().zip(counts) {
        text += &format!(" {name}={}", done.into_inner());
    }
    if disk.is_some() {
        text += &format!(" blocks={}", blocks.into_inner());
    }
    Ok(text)
}
