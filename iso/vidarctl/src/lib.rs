//! The program `vidarctl`. What is public is its command line, for whoever renders a man page or a completion from it,
//! and the trace as JSON, for whoever checks its form.

mod affinity;
mod args;
mod crash;
mod dma;
mod doctor;
mod exits;
mod failure;
#[cfg(test)]
mod fake;
mod guard;
mod hypercall;
mod json;
mod live;
mod locks;
mod log;
mod misuse;
mod numbers;
mod query;
mod ramoops;
mod status;
mod terminal;
mod top;
mod trace;
mod version;

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;
use std::thread::sleep;

pub use crate::args::command;
pub use crate::trace::Exit;
pub use crate::trace::clock::Clock;
pub use crate::trace::events::object as trace_events;
pub use crate::trace::symbols::{Place, Symbols};

use crate::args::{Action, Command, GuardAction};
use crate::exits::Interval;
use crate::failure::Failure;
use crate::live::{REFRESH, follow, rates, stay, watch};
use crate::misuse::Misuse;
use crate::query::Vidar;
use crate::trace::by_rip::ByFunction;
use crate::trace::kinds::Kinds;
use crate::trace::own::Own;
use crate::trace::reader::Reader;
use crate::trace::{HEADER, events, line};

/// Runs the program with these arguments, the first of which is its name.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<_> = arguments.into_iter().collect();
    let (command, json) = match args::parse(&arguments) {
        Ok(Action::Run { command, json }) => (command, json),
        Ok(Action::Print(text)) => return print(&text),
        Err(Misuse { sentence, help }) => {
            eprint!("vidarctl: {sentence}\n\n{help}");
            return ExitCode::from(2);
        }
    };
    if command == Command::Doctor {
        return examine(json);
    }
    if command.needs_rights() {
        // Without them Vidar refuses the calls, and that is reported.
        let _ = hypercall::allow_reset();
    }
    match command {
        Command::Top { once: false } => return watch(json).unwrap_or_else(|failure| fail(&failure)),
        Command::Trace { last, only, follow: true } => {
            let only = only.unwrap_or(Kinds::ALL);
            return follow(last, only, json).unwrap_or_else(|failure| fail(&failure));
        }
        _ => {}
    }
    match answer(command, json) {
        Ok(text) => print(&text),
        Err(failure) => fail(&failure),
    }
}

/// Says why there is no answer.
fn fail(failure: &Failure) -> ExitCode {
    eprintln!("vidarctl: {failure}");
    ExitCode::FAILURE
}

/// The exit status of `doctor` if it cannot give a verdict, so that it differs from a verdict.
const NO_VERDICT: u8 = 4;

/// Says whether this machine can run Vidar.
fn examine(json: bool) -> ExitCode {
    if Vidar::find(hypercall::call, hypercall::hypervisor()).is_ok() {
        // Without the right Vidar keeps its log back, and that is reported.
        let _ = hypercall::allow_reset();
    }
    match doctor::examine(hypercall::call, hypercall::hypervisor()) {
        Ok(verdict) => match print(&if json { verdict.json() } else { verdict.text() }) {
            ExitCode::SUCCESS => ExitCode::from(verdict.exit_status()),
            _ => ExitCode::from(NO_VERDICT),
        },
        Err(failure) => {
            eprintln!("vidarctl: {failure}");
            ExitCode::from(NO_VERDICT)
        }
    }
}

/// Returns the text that the command prints. All commands but `doctor` and those that go on have one.
fn answer(command: Command, json: bool) -> Result<String, Failure> {
    if command == Command::Tsc {
        let tsc = hypercall::tsc();
        return Ok(if json { format!("{{\"tsc\":{tsc}}}\n") } else { format!("{tsc}\n") });
    }
    let vidar = Vidar::find(hypercall::call, hypercall::hypervisor())?;
    Ok(match command {
        Command::Status => {
            let status = vidar.status()?;
            if json { status.json() } else { status.text() }
        }
        Command::Exits { per_cpu: true, .. } => {
            let cpus = vidar.exits_by_cpu()?;
            if json { exits::json_by_cpu(&cpus) } else { exits::text_by_cpu(&cpus) }
        }
        Command::Exits { by_rip: true, .. } => {
            let mut reader = Reader::new(&vidar, Own::of_this_program(), Kinds::ALL)?;
            let exits = reader.read()?.exits;
            let functions =
                ByFunction::new(&exits, reader.cpus(), Clock::measure(), &Symbols::of_the_kernel());
            if json { functions.json() } else { functions.text() }
        }
        Command::Exits { idle: None, .. } => {
            let counts = vidar.exits()?;
            if json { counts.json() } else { counts.text() }
        }
        Command::Exits { idle: Some(time), .. } => {
            let before = vidar.exits()?;
            sleep(time);
            let interval = Interval::between(&before, &vidar.exits()?, time);
            if json { interval.json() } else { interval.text() }
        }
        Command::Top { .. } => {
            let wait = || {
                sleep(REFRESH);
                false
            };
            let rates = rates(&vidar, stay(), wait)?;
            rates.map_or_else(String::new, |rates| if json { rates.json() } else { rates.text() })
        }
        Command::Trace { last, only, .. } => {
            let mut reader = Reader::new(&vidar, Own::of_this_program(), only.unwrap_or(Kinds::ALL))?;
            let exits = reader.read()?.exits;
            let exits = &exits[exits.len() - last.unwrap_or(usize::MAX).min(exits.len())..];
            trace_text(exits, reader.cpus(), json)
        }
        Command::Guard { action: Some(action) } => match action {
            GuardAction::Lock => {
                let state = locks::lock(&vidar)?;
                if json { state.json() } else { state.text() }
            }
            GuardAction::Audit => {
                let (table, symbols) = (locks::audit(&vidar)?, Symbols::of_the_kernel());
                if json { table.json(&symbols) } else { table.text(&symbols) }
            }
        },
        Command::Guard { action: None } => {
            let (all, cpus) = (vidar.guard()?, vidar.cpus()?);
            let symbols = Symbols::of_the_kernel();
            if json { guard::json(&all, cpus, &symbols) } else { guard::text(&all, cpus, &symbols) }
        }
        Command::Dma => {
            let dma = vidar.dma()?;
            if json { dma.json() } else { dma.text() }
        }
        Command::Log { ramoops: true, .. } => {
            let record = vidar.record()?;
            if json { record.json() } else { record.text() }
        }
        Command::Log { last, .. } => {
            let log = if last { vidar.last_log()? } else { vidar.log()? };
            if log.lost > 0 && !json {
                eprintln!(
                    "vidarctl: the log is longer than the memory that Vidar has for it, so its first {} bytes are lost",
                    log.lost
                );
            }
            if json { log.json() } else { log.text() }
        }
        Command::Crash { yes } => {
            if !yes && !crash::confirmed(io::stdin().lock(), &mut io::stderr()) {
                return Err(Failure::NotConfirmed);
            }
            return Err(vidar.crash());
        }
        Command::Doctor | Command::Tsc => unreachable!("these commands do not need Vidar"),
    })
}

/// Formats the exits of a machine with so many CPUs.
fn trace_text(exits: &[Exit], cpus: u64, json: bool) -> String {
    let (clock, symbols) = (Clock::measure(), Symbols::of_the_kernel());
    if json {
        return events::object(exits, cpus, clock, &symbols);
    }
    let lines: String = exits.iter().map(|exit| line(exit, clock, &symbols)).collect();
    HEADER.to_owned() + &lines
}

/// Prints the text. It is no failure if the reader has closed the pipe, as `head` does.
fn print(text: &str) -> ExitCode {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vidarctl: cannot write: {error}");
            ExitCode::FAILURE
        }
    }
}
