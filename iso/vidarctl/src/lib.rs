//! The program `vidarctl`. What is public is its command line, for whoever renders a man page or a completion from it.

mod args;
mod crash;
mod doctor;
mod exits;
mod failure;
mod hypercall;
mod json;
mod log;
mod misuse;
mod numbers;
mod query;
mod status;
mod version;

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;
use std::thread::sleep;

pub use crate::args::command;

use crate::args::{Action, Command};
use crate::exits::Interval;
use crate::failure::Failure;
use crate::misuse::Misuse;
use crate::query::Vidar;

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
    match answer(command, json) {
        Ok(text) => print(&text),
        Err(failure) => {
            eprintln!("vidarctl: {failure}");
            ExitCode::FAILURE
        }
    }
}

/// The exit status of `doctor` if it cannot give a verdict, so that it differs from a verdict.
const NO_VERDICT: u8 = 4;

/// Says whether this machine can run Vidar.
fn examine(json: bool) -> ExitCode {
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

/// Returns the text that the command prints. All commands but `doctor` have one.
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
        Command::Log => {
            let log = vidar.log()?;
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
            // Without the right Vidar refuses the call, and that is reported.
            let _ = hypercall::allow_reset();
            return Err(vidar.crash());
        }
        Command::Doctor | Command::Tsc => unreachable!("these commands do not need Vidar"),
    })
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
