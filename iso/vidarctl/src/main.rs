//! Shows the state of Vidar, from inside its guest.

mod args;
mod exits;
mod failure;
mod hypercall;
mod json;
mod log;
mod numbers;
mod query;
mod status;

use std::io::{self, Write};
use std::process::ExitCode;
use std::thread::sleep;

use crate::args::{Action, Command, USAGE};
use crate::exits::Interval;
use crate::failure::Failure;
use crate::query::Vidar;

fn main() -> ExitCode {
    let (command, json) = match args::parse(std::env::args().skip(1)) {
        Ok(Action::Run { command, json }) => (command, json),
        Ok(Action::Help) => return print(USAGE),
        Ok(Action::Version) => return print(concat!("vidarctl ", env!("CARGO_PKG_VERSION"), "\n")),
        Err(sentence) => {
            eprint!("vidarctl: {sentence}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match run(command, json) {
        Ok(text) => print(&text),
        Err(failure) => {
            eprintln!("vidarctl: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command, json: bool) -> Result<String, Failure> {
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
        Command::Tsc => unreachable!("the time-stamp counter is read above, without Vidar"),
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
