//! Executes instructions that a hypervisor has to read from memory, while another thread changes their bytes and the
//! rights of their pages. Users without any privilege can do this, so it must not harm the machine.
//!
//! `mutate SECONDS`

mod code;
mod victim;

use std::env;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use rustix::process::{Gid, Uid, geteuid};
use rustix::thread::{CpuSet, sched_setaffinity, set_thread_gid, set_thread_uid};

use crate::code::{CPUID, Code, FORMS};
use crate::victim::Outcome;

/// The ID of a user and of a group without privileges.
const NOBODY: u32 = 65534;

/// The number of times that each instruction is executed while nothing changes.
const QUIET_ROUNDS: u32 = 50;

/// The outcomes of the instructions: how many were executed, and how many raised each signal.
#[derive(Debug, Default)]
struct Counts {
    executed: u64,
    illegal: u64,
    segmentation: u64,
    other: u64,
}

impl Counts {
    fn count(&mut self, outcome: Outcome) {
        *match outcome {
            Outcome::Executed => &mut self.executed,
            Outcome::Signal(libc::SIGILL) => &mut self.illegal,
            Outcome::Signal(libc::SIGSEGV) => &mut self.segmentation,
            Outcome::Signal(_) => &mut self.other,
        } += 1;
    }
}

fn main() -> ExitCode {
    let Some(seconds) = env::args().nth(1).and_then(|text| text.parse().ok()) else {
        eprintln!("usage: mutate SECONDS");
        return ExitCode::from(2);
    };
    match run(Duration::from_secs(seconds)) {
        Ok(counts) => {
            println!("mutate: {counts}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("mutate: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(time: Duration) -> Result<String, String> {
    drop_rights()?;
    victim::catch_signals()?;
    let code = Code::map()?;
    let locked = quiet(&code)?;
    let stop = AtomicBool::new(false);
    let (counts, changes) = thread::scope(|scope| {
        let victim = scope.spawn(|| -> Result<Counts, String> {
            pin(0)?;
            victim::own_signal_stack()?;
            let mut counts = Counts::default();
            while !stop.load(Ordering::Relaxed) {
                for place in code.places() {
                    counts.count(victim::execute(place));
                }
            }
            Ok(counts)
        });
        let changer = scope.spawn(|| {
            // On a machine with one CPU this fails, and both threads share that CPU.
            let _ = pin(1);
            code.change_until(&stop)
        });
        thread::sleep(time);
        stop.store(true, Ordering::Relaxed);
        let panicked = |_| "a thread panicked".to_owned();
        Ok::<_, String>((victim.join().map_err(panicked)??, changer.join().map_err(panicked)??))
    })?;
    // CPUID must do the same as before.
    if quiet(&code)? != locked {
        return Err("the outcome of LOCK CPUID has changed".to_owned());
    }
    let Counts { executed, illegal, segmentation, other } = counts;
    let locked = if locked { "executed" } else { "refused" };
    Ok(format!(
        "lock={locked} changes={changes} executed={executed} SIGILL={illegal} SIGSEGV={segmentation} others={other}"
    ))
}

/// Executes each instruction while nothing changes. Returns true if CPUID with a LOCK prefix is executed, as in QEMU,
/// and false if it raises #UD, as in the manuals.
fn quiet(code: &Code) -> Result<bool, String> {
    victim::own_signal_stack()?;
    code.allow()?;
    let mut locked = None;
    for (form, name) in FORMS {
        for place in code.places() {
            code.write(place, form);
            for _ in 0..QUIET_ROUNDS {
                let outcome = victim::execute(place);
                let has_lock = form.contains(&0xf0);
                match outcome {
                    Outcome::Executed if has_lock && locked != Some(false) => locked = Some(true),
                    Outcome::Signal(libc::SIGILL) if has_lock && locked != Some(true) => locked = Some(false),
                    Outcome::Executed if form.ends_with(CPUID) && !has_lock => {}
                    _ if !form.ends_with(CPUID) => {}
                    outcome => return Err(format!("the outcome of {name} is {outcome:?}")),
                }
            }
        }
    }
    locked.ok_or_else(|| "no form has a LOCK prefix".to_owned())
}

/// Becomes a user without privileges, in this thread and in all that it starts.
fn drop_rights() -> Result<(), String> {
    if geteuid().is_root() {
        let failed = |error| format!("cannot become another user: {error}");
        set_thread_gid(Gid::from_raw(NOBODY)).map_err(failed)?;
        set_thread_uid(Uid::from_raw(NOBODY)).map_err(failed)?;
    }
    if geteuid().is_root() { Err("the program still runs as root".to_owned()) } else { Ok(()) }
}

/// Makes this thread run on `cpu` only.
fn pin(cpu: usize) -> Result<(), String> {
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(None, &set).map_err(|error| format!("sched_setaffinity: {error}"))
}
