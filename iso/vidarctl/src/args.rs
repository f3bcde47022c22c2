//! The command line.

use std::time::Duration;

/// The text that `--help` prints.
pub const USAGE: &str = "\
Usage: vidarctl COMMAND [--json]

Shows the state of Vidar, the hypervisor that this Linux runs under.

Commands:
  status                  Vidar's version, its CPUs, its exits so far and its memory
  exits [--idle SECONDS | --per-cpu]
                          the number of exits of each kind since boot, or during the
                          next SECONDS; of all CPUs together, or of each CPU
  log                     the log of Vidar
  tsc                     the time-stamp counter, in decimal (also without Vidar)

Options:
  --json      print the answer as one JSON object
  --help      print this text
  --version   print the version of vidarctl
";

/// A command of `vidarctl`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Show version, CPUs, exits and memory.
    Status,
    /// Count the exits of each kind.
    Exits {
        /// If given, only the exits during this time from now on are counted.
        idle: Option<Duration>,
        /// True if the exits of each CPU are counted separately.
        per_cpu: bool,
    },
    /// Show Vidar's log.
    Log,
    /// Show the time-stamp counter.
    Tsc,
}

/// What a command line asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Run a command.
    Run {
        /// The command.
        command: Command,
        /// True if the answer is to be JSON.
        json: bool,
    },
    /// Print the usage.
    Help,
    /// Print the version.
    Version,
}

/// Parses the arguments. An error is a sentence that says what is wrong with them.
pub fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Action, String> {
    let mut command = None;
    let mut json = false;
    let (mut idle, mut per_cpu) = (None, false);
    let mut arguments = arguments.into_iter();
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "-h" | "--help" | "help" => return Ok(Action::Help),
            "-V" | "--version" => return Ok(Action::Version),
            "--json" => json = true,
            "--per-cpu" => per_cpu = true,
            "--idle" => {
                idle = Some(seconds(
                    &arguments.next().ok_or("--idle needs a number of seconds: write it after the option")?,
                )?);
            }
            other if other.starts_with("--idle=") => idle = Some(seconds(&other["--idle=".len()..])?),
            option if option.starts_with('-') => {
                return Err(format!("there is no option {option}: give one of the options below"));
            }
            word if command.is_some() => {
                return Err(format!("only one command can be given: leave out {word}"));
            }
            "status" => command = Some(Command::Status),
            "exits" => command = Some(Command::Exits { idle: None, per_cpu: false }),
            "log" => command = Some(Command::Log),
            "tsc" => command = Some(Command::Tsc),
            word => return Err(format!("there is no command {word}: give one of the commands below")),
        }
    }
    let command = match (command.ok_or("a command is missing: give one of the commands below")?, idle) {
        (Command::Exits { .. }, Some(_)) if per_cpu => {
            return Err("--idle and --per-cpu cannot be combined: leave one of them out".into());
        }
        (Command::Exits { .. }, idle) => Command::Exits { idle, per_cpu },
        (_, Some(_)) => return Err("--idle is an option of the command exits only: leave it out".into()),
        (_, None) if per_cpu => {
            return Err("--per-cpu is an option of the command exits only: leave it out".into());
        }
        (command, None) => command,
    };
    Ok(Action::Run { command, json })
}

/// Parses a number of seconds, of at most a day.
fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().filter(|seconds| *seconds > 0.0 && *seconds <= 86_400.0);
    seconds
        .map(Duration::from_secs_f64)
        .ok_or_else(|| format!("--idle needs a number of seconds above 0 and up to 86400, and got {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_words(line: &str) -> Result<Action, String> {
        parse(line.split_whitespace().map(String::from))
    }

    #[test]
    fn commands_and_options_may_come_in_any_order() {
        let run = |command, json| Ok(Action::Run { command, json });
        assert_eq!(parse_words("status"), run(Command::Status, false));
        assert_eq!(parse_words("--json log"), run(Command::Log, true));
        assert_eq!(parse_words("tsc --json"), run(Command::Tsc, true));
        assert_eq!(parse_words("exits"), run(Command::Exits { idle: None, per_cpu: false }, false));
        assert_eq!(parse_words("exits --per-cpu"), run(Command::Exits { idle: None, per_cpu: true }, false));
        let two = Command::Exits { idle: Some(Duration::from_secs(2)), per_cpu: false };
        assert_eq!(parse_words("exits --idle 2"), run(two, false));
        assert_eq!(parse_words("--idle=2 exits --json"), run(two, true));
        assert_eq!(parse_words("exits --help"), Ok(Action::Help));
        assert_eq!(parse_words("--version"), Ok(Action::Version));
    }

    #[test]
    fn errors_say_what_is_wrong() {
        for (line, sentence) in [
            ("", "a command is missing: give one of the commands below"),
            ("stats", "there is no command stats: give one of the commands below"),
            ("status --jsn", "there is no option --jsn: give one of the options below"),
            ("status log", "only one command can be given: leave out log"),
            ("status --idle 3", "--idle is an option of the command exits only: leave it out"),
            ("log --per-cpu", "--per-cpu is an option of the command exits only: leave it out"),
            ("exits --per-cpu --idle 3", "--idle and --per-cpu cannot be combined: leave one of them out"),
            ("exits --idle", "--idle needs a number of seconds: write it after the option"),
            ("exits --idle soon", "--idle needs a number of seconds above 0 and up to 86400, and got soon"),
            ("exits --idle=-1", "--idle needs a number of seconds above 0 and up to 86400, and got -1"),
            ("exits --idle nan", "--idle needs a number of seconds above 0 and up to 86400, and got nan"),
            ("exits --idle 1e300", "--idle needs a number of seconds above 0 and up to 86400, and got 1e300"),
        ] {
            assert_eq!(parse_words(line), Err(sentence.to_string()), "{line}");
        }
    }
}
