//! The command line.

use std::time::Duration;

/// What `--help` says.
pub const USAGE: &str = "\
Usage: vidarctl COMMAND [--json]

Asks Vidar, the hypervisor beneath this Linux, how it is.

Commands:
  status                  version, CPUs, exits in all, and the memory that Vidar keeps
  exits [--idle SECONDS | --per-cpu]
                          exits by kind, since boot or during the seconds given, of
                          all CPUs together or of each
  log                     what Vidar has logged
  tsc                     the time-stamp counter, in decimal (needs no Vidar)

Options:
  --json      the answer as one JSON object
  --help      this text
  --version   the version of vidarctl
";

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// How Vidar is.
    Status,
    /// Exits by kind.
    Exits {
        /// Only those during this time.
        idle: Option<Duration>,
        /// Those of each CPU.
        per_cpu: bool,
    },
    /// Vidar's log.
    Log,
    /// The time-stamp counter.
    Tsc,
}

/// A command line that was understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parsed {
    /// Do this.
    Run {
        /// What to do.
        command: Command,
        /// Whether to answer in JSON.
        json: bool,
    },
    /// Print the usage.
    Help,
    /// Print the version.
    Version,
}

/// Understands the arguments, or says in a sentence what is wrong with them.
pub fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Parsed, String> {
    let mut command = None;
    let mut json = false;
    let (mut idle, mut per_cpu) = (None, false);
    let mut arguments = arguments.into_iter();
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "-h" | "--help" | "help" => return Ok(Parsed::Help),
            "-V" | "--version" => return Ok(Parsed::Version),
            "--json" => json = true,
            "--per-cpu" => per_cpu = true,
            "--idle" => idle = Some(seconds(&arguments.next().ok_or("--idle needs a number of seconds")?)?),
            other if other.starts_with("--idle=") => idle = Some(seconds(&other["--idle=".len()..])?),
            option if option.starts_with('-') => return Err(format!("there is no option {option}")),
            word if command.is_some() => return Err(format!("one command at a time, not {word} as well")),
            "status" => command = Some(Command::Status),
            "exits" => command = Some(Command::Exits { idle: None, per_cpu: false }),
            "log" => command = Some(Command::Log),
            "tsc" => command = Some(Command::Tsc),
            word => return Err(format!("there is no command {word}")),
        }
    }
    let command = match (command.ok_or("say what to do")?, idle) {
        (Command::Exits { .. }, Some(_)) if per_cpu => return Err("--idle or --per-cpu, not both".into()),
        (Command::Exits { .. }, idle) => Command::Exits { idle, per_cpu },
        (_, Some(_)) => return Err("--idle goes with exits only".into()),
        (_, None) if per_cpu => return Err("--per-cpu goes with exits only".into()),
        (command, None) => command,
    };
    Ok(Parsed::Run { command, json })
}

/// A time of up to a day.
fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().filter(|seconds| *seconds > 0.0 && *seconds <= 86_400.0);
    seconds
        .map(Duration::from_secs_f64)
        .ok_or_else(|| format!("--idle needs a number of seconds, not {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_words(line: &str) -> Result<Parsed, String> {
        parse(line.split_whitespace().map(String::from))
    }

    #[test]
    fn commands_and_options_are_understood_in_any_order() {
        let run = |command, json| Ok(Parsed::Run { command, json });
        assert_eq!(parse_words("status"), run(Command::Status, false));
        assert_eq!(parse_words("--json log"), run(Command::Log, true));
        assert_eq!(parse_words("tsc --json"), run(Command::Tsc, true));
        assert_eq!(parse_words("exits"), run(Command::Exits { idle: None, per_cpu: false }, false));
        assert_eq!(parse_words("exits --per-cpu"), run(Command::Exits { idle: None, per_cpu: true }, false));
        let two = Command::Exits { idle: Some(Duration::from_secs(2)), per_cpu: false };
        assert_eq!(parse_words("exits --idle 2"), run(two, false));
        assert_eq!(parse_words("--idle=2 exits --json"), run(two, true));
        assert_eq!(parse_words("exits --help"), Ok(Parsed::Help));
        assert_eq!(parse_words("--version"), Ok(Parsed::Version));
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (line, sentence) in [
            ("", "say what to do"),
            ("stats", "there is no command stats"),
            ("status --jsn", "there is no option --jsn"),
            ("status log", "one command at a time, not log as well"),
            ("status --idle 3", "--idle goes with exits only"),
            ("log --per-cpu", "--per-cpu goes with exits only"),
            ("exits --per-cpu --idle 3", "--idle or --per-cpu, not both"),
            ("exits --idle", "--idle needs a number of seconds"),
            ("exits --idle soon", "--idle needs a number of seconds, not soon"),
            ("exits --idle=-1", "--idle needs a number of seconds, not -1"),
            ("exits --idle nan", "--idle needs a number of seconds, not nan"),
            ("exits --idle 1e300", "--idle needs a number of seconds, not 1e300"),
        ] {
            assert_eq!(parse_words(line), Err(sentence.to_string()), "{line}");
        }
    }
}
