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
            "--idle" => {
                idle = Some(seconds(&arguments.next().ok_or("--idle needs a number of seconds after it")?)?);
            }
            other if other.starts_with("--idle=") => idle = Some(seconds(&other["--idle=".len()..])?),
            option if option.starts_with('-') => {
                return Err(format!("there is no option {option}: give one of those below"));
            }
            word if command.is_some() => {
                return Err(format!("only one command can be given at a time: leave out {word}"));
            }
            "status" => command = Some(Command::Status),
            "exits" => command = Some(Command::Exits { idle: None, per_cpu: false }),
            "log" => command = Some(Command::Log),
            "tsc" => command = Some(Command::Tsc),
            word => return Err(format!("there is no command {word}: give one of those below")),
        }
    }
    let command = match (command.ok_or("there is no command: give one of those below")?, idle) {
        (Command::Exits { .. }, Some(_)) if per_cpu => {
            return Err("--idle and --per-cpu do not go together: leave one of them out".into());
        }
        (Command::Exits { .. }, idle) => Command::Exits { idle, per_cpu },
        (_, Some(_)) => return Err("--idle goes with the command exits alone: leave it out".into()),
        (_, None) if per_cpu => {
            return Err("--per-cpu goes with the command exits alone: leave it out".into());
        }
        (command, None) => command,
    };
    Ok(Parsed::Run { command, json })
}

/// A time of up to a day.
fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().filter(|seconds| *seconds > 0.0 && *seconds <= 86_400.0);
    seconds
        .map(Duration::from_secs_f64)
        .ok_or_else(|| format!("--idle needs a number of seconds up to a day, and {text} is none"))
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
            ("", "there is no command: give one of those below"),
            ("stats", "there is no command stats: give one of those below"),
            ("status --jsn", "there is no option --jsn: give one of those below"),
            ("status log", "only one command can be given at a time: leave out log"),
            ("status --idle 3", "--idle goes with the command exits alone: leave it out"),
            ("log --per-cpu", "--per-cpu goes with the command exits alone: leave it out"),
            ("exits --per-cpu --idle 3", "--idle and --per-cpu do not go together: leave one of them out"),
            ("exits --idle", "--idle needs a number of seconds after it"),
            ("exits --idle soon", "--idle needs a number of seconds up to a day, and soon is none"),
            ("exits --idle=-1", "--idle needs a number of seconds up to a day, and -1 is none"),
            ("exits --idle nan", "--idle needs a number of seconds up to a day, and nan is none"),
            ("exits --idle 1e300", "--idle needs a number of seconds up to a day, and 1e300 is none"),
        ] {
            assert_eq!(parse_words(line), Err(sentence.to_string()), "{line}");
        }
    }
}
