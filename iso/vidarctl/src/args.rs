//! The command line: one table for `--help`, the man page, the completion and the README.

use std::ffi::OsString;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, Subcommand};

use crate::misuse::Misuse;
use crate::trace::kinds::Kinds;
use crate::version;

/// Shows the state of Vidar, the hypervisor that this Linux runs under
#[derive(Debug, Parser)]
#[command(name = "vidarctl", version = version::text(), after_help = EXIT_STATUS, arg_required_else_help = false)]
struct Arguments {
    /// Print the answer as one JSON object
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

/// The exit statuses, as `--help` and the man page tell them.
const EXIT_STATUS: &str = "\
Exit status:
  0  the answer was printed
  1  there is no answer, for example since this Linux does not run under Vidar
  2  the command line is wrong
Of `vidarctl doctor`:
  0  this machine can run Vidar, or runs under it
  1  it cannot
  2  the command line is wrong
  3  it is not known; as root it may be
  4  there is no verdict, for example since Vidar below speaks another ABI";

impl Command {
    /// Returns true if Vidar answers only a program that may reset the machine, or answers it more.
    pub fn needs_rights(self) -> bool {
        match self {
            Self::Status
            | Self::Trace { .. }
            | Self::Guard { .. }
            | Self::Log { .. }
            | Self::Crash { .. } => true,
            Self::Exits { by_rip, .. } => by_rip,
            Self::Top { .. } | Self::Dma | Self::Doctor | Self::Tsc => false,
        }
    }
}

/// A command of `vidarctl`. The first paragraph of its description says what it prints, and is in the README too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// Vidar's version, the extension, the number of exits, the memory that Vidar keeps, what it guards, and whether
    /// devices can reach that memory
    Status,
    /// the exits by kind
    Exits {
        /// Count the exits during the next SECONDS, in place of those since boot
        #[arg(long, value_name = "SECONDS", value_parser = seconds, allow_negative_numbers = true)]
        idle: Option<Duration>,
        /// Count the exits of each CPU separately
        #[arg(long, conflicts_with = "idle")]
        per_cpu: bool,
        /// Count the exits of each function of the kernel, of those that the trace has
        #[arg(long, conflicts_with_all = ["idle", "per_cpu"])]
        by_rip: bool,
    },
    /// the exits per second by kind and CPU, as a live view that q ends
    Top {
        /// Watch for one second, print the view once, and end
        #[arg(long)]
        once: bool,
    },
    /// the last exits with time, duration and place, if Vidar was booted with trace=on
    ///
    /// Each line has the time of the exit in seconds, by the time-stamp counter; the CPU; the microseconds that Vidar
    /// took; the kind of the exit and what exited; and the function of the kernel. Only root sees the trace. The exits
    /// that vidarctl itself causes are left out. With --json the answer is in the Trace Event format, which
    /// ui.perfetto.dev opens, and chrome://tracing in a Chromium that still has it.
    Trace {
        /// Print the last N exits only
        #[arg(short = 'n', long = "last", value_name = "N", value_parser = number)]
        last: Option<usize>,
        /// Print exits of these kinds only, whose names `vidarctl exits` has, with commas between them
        #[arg(long, value_name = "KINDS", value_parser = Kinds::parse)]
        only: Option<Kinds>,
        /// Go on with new exits as they happen
        #[arg(long)]
        follow: bool,
    },
    /// the protections of the CPU that Vidar keeps on with guard=cpu, and how often it has refused to change each
    ///
    /// Each line has a protection, the number of CPUs on which it is kept on now, how often Vidar has refused to change
    /// it, and the function whose instruction was the last that was refused. Only root sees this.
    Guard {
        #[command(subcommand)]
        action: Option<GuardAction>,
    },
    /// whether devices can reach Vidar's memory, the number of IOMMUs, and which devices have been refused
    Dma,
    /// Vidar's log
    Log {
        /// Print the log of the start before this one, which a reset leaves in memory
        #[arg(long)]
        last: bool,
        /// Print the parameters by which Linux' module ramoops shows that log in /sys/fs/pstore, if that start has
        /// crashed
        #[arg(long, conflicts_with = "last")]
        ramoops: bool,
    },
    /// the time-stamp counter, without Vidar as well
    Tsc,
    /// ends this Linux, with a crash report by Vidar on the screen and the serial line
    ///
    /// Vidar stops all CPUs where it can, writes their states, and then halts or resets the machine, as its boot option
    /// on-crash says. What is not on a disk yet is lost. Only root can do it, since Vidar takes the call only from a
    /// program that may reset the machine by its I/O ports anyway. Linux in lockdown mode gives no program that right.
    Crash {
        /// Do not ask whether to go on
        #[arg(long)]
        yes: bool,
    },
    /// whether this machine can run Vidar, and what stands in the way; without Vidar as well
    ///
    /// Each line has the state of what was looked at, its name, and what was found. Unless that is as Vidar needs it,
    /// the line below says what to do. It finds out more as root, and most if the module msr is loaded. Exit statuses:
    /// 0, this machine can run Vidar, or it runs under Vidar; 1, it cannot, which is a "problem"; 2, the command line
    /// is wrong; 3, more rights are needed to tell, which is "unknown"; 4, there is no verdict. A "warning" changes
    /// nothing of that.
    Doctor,
}

/// What `vidarctl guard` is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Subcommand)]
pub enum GuardAction {
    /// lock the kernel's read-only data and its IDT until the machine is reset
    ///
    /// This needs Vidar's boot option guard=data or guard=audit. With guard=audit Vidar also begins to watch the
    /// kernel's code. Vidar finds the memory by itself. The command runs on each CPU in turn, since each CPU has to
    /// forget that it could write there. A CPU that is offline does so when it comes online.
    Lock,
    /// print which functions have written to the kernel's code, and how often
    ///
    /// This needs Vidar's boot option guard=audit and `vidarctl guard lock`. It also begins to watch again the pages
    /// that have been written to: after the first write to a page, Vidar does not see further ones until then.
    Audit,
}

/// What a command line asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Run a command.
    Run {
        /// The command.
        command: Command,
        /// True if the answer is to be JSON.
        json: bool,
    },
    /// Print this text: the help, or the version.
    Print(String),
}

/// Returns the command line of `vidarctl`.
pub fn command() -> clap::Command {
    Arguments::command()
}

/// Parses the arguments, the first of which is the program's name.
pub fn parse(arguments: &[OsString]) -> Result<Action, Misuse> {
    match Arguments::try_parse_from(arguments) {
        Ok(Arguments { json, command }) => Ok(Action::Run { command, json }),
        Err(error) if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
            Ok(Action::Print(error.to_string()))
        }
        Err(error) => Err(Misuse::new(&error, command(), arguments)),
    }
}

/// Parses a number of seconds, of at most a day.
fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().filter(|seconds| *seconds > 0.0 && *seconds <= 86_400.0);
    seconds
        .map(Duration::from_secs_f64)
        .ok_or_else(|| format!("a number of seconds above 0 and up to 86400, and got {text}"))
}

/// Parses a number of exits.
fn number(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|number| *number > 0);
    number.ok_or_else(|| format!("a number of exits above 0, and got {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_words(line: &str) -> Result<Action, Misuse> {
        let words = ["vidarctl"].into_iter().chain(line.split_whitespace());
        parse(&words.map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn the_table_is_sound() {
        command().debug_assert();
    }

    #[test]
    fn options_may_come_before_or_after_what_they_belong_to() {
        let run = |command, json| Ok(Action::Run { command, json });
        assert_eq!(parse_words("status"), run(Command::Status, false));
        assert_eq!(parse_words("guard --json"), run(Command::Guard { action: None }, true));
        assert_eq!(parse_words("--json log"), run(Command::Log { last: false, ramoops: false }, true));
        assert_eq!(parse_words("log --last"), run(Command::Log { last: true, ramoops: false }, false));
        assert_eq!(parse_words("tsc --json"), run(Command::Tsc, true));
        assert_eq!(parse_words("dma"), run(Command::Dma, false));
        assert_eq!(parse_words("crash"), run(Command::Crash { yes: false }, false));
        assert_eq!(parse_words("crash --yes"), run(Command::Crash { yes: true }, false));
        let exits = |idle, per_cpu, by_rip| Command::Exits { idle, per_cpu, by_rip };
        assert_eq!(parse_words("exits"), run(exits(None, false, false), false));
        assert_eq!(parse_words("exits --per-cpu"), run(exits(None, true, false), false));
        assert_eq!(parse_words("exits --by-rip --json"), run(exits(None, false, true), true));
        assert_eq!(parse_words("top --once"), run(Command::Top { once: true }, false));
        let trace = |last, only, follow| Command::Trace { last, only, follow };
        assert_eq!(parse_words("trace"), run(trace(None, None, false), false));
        assert_eq!(parse_words("trace -n 20 --json"), run(trace(Some(20), None, false), true));
        assert_eq!(parse_words("trace --last=20 --follow"), run(trace(Some(20), None, true), false));
        let two_kinds = Kinds::parse("cpuid,wrmsr").ok();
        assert_eq!(parse_words("trace --only cpuid,wrmsr"), run(trace(None, two_kinds, false), false));
        let two = exits(Some(Duration::from_secs(2)), false, false);
        assert_eq!(parse_words("exits --idle 2"), run(two, false));
        assert_eq!(parse_words("--json exits --idle=2"), run(two, true));
        assert_eq!(parse_words("exits --json --idle=2"), run(two, true));
    }

    #[test]
    fn help_and_version_are_printed() {
        let printed = |line: &str| match parse_words(line) {
            Ok(Action::Print(text)) => text,
            other => panic!("{line}: {other:?}"),
        };
        for line in ["--help", "-h", "help"] {
            let text = printed(line);
            for part in ["Usage: vidarctl", "exits", "--json", "Exit status:"] {
                assert!(text.contains(part), "{line} does not print {part}: {text}");
            }
        }
        assert!(printed("exits --help").contains("--idle <SECONDS>"));
        assert_eq!(printed("--version"), format!("vidarctl {}\n", version::text()));
        assert_eq!(printed("-V"), printed("--version"));
    }

    #[test]
    fn errors_say_what_is_wrong() {
        for (line, sentence) in [
            ("", "a command is missing: give one of the commands below"),
            ("--json", "a command is missing: give one of the commands below"),
            ("stats", "there is no command stats: give one of the commands below"),
            ("status --jsn", "there is no option --jsn: give one of the options below"),
            ("-x", "there is no option -x: give one of the options below"),
            ("status log", "only one command can be given: leave out log"),
            (
                "status --idle 3",
                "--idle is an option of the command exits only: leave it out, or write it after exits",
            ),
            (
                "--idle=3 exits",
                "--idle is an option of the command exits only: leave it out, or write it after exits",
            ),
            (
                "log --per-cpu",
                "--per-cpu is an option of the command exits only: leave it out, or write it after exits",
            ),
            ("exits --per-cpu --idle 3", "--per-cpu and --idle cannot be combined: leave one of them out"),
            ("exits --by-rip --per-cpu", "--by-rip and --per-cpu cannot be combined: leave one of them out"),
            ("trace -n 0", "--last needs a number of exits above 0, and got 0"),
            ("trace --last many", "--last needs a number of exits above 0, and got many"),
            (
                "trace --only cpuid,reset",
                "--only needs one or more of cpuid, rdmsr, wrmsr, control-register, xsetbv, invd, hypercall, \
                 virtualization-instruction, second-stage, init, sipi, nmi, window, triple-fault, other, and got \"reset\"",
            ),
            ("log --last --ramoops", "--last and --ramoops cannot be combined: leave one of them out"),
            ("exits --idle", "--idle needs a value: write it after the option"),
            ("exits --idle --json", "--idle needs a value: write it after the option"),
            ("exits --idle soon", "--idle needs a number of seconds above 0 and up to 86400, and got soon"),
            ("exits --idle=-1", "--idle needs a number of seconds above 0 and up to 86400, and got -1"),
            ("exits --idle -1", "--idle needs a number of seconds above 0 and up to 86400, and got -1"),
            ("exits --idle nan", "--idle needs a number of seconds above 0 and up to 86400, and got nan"),
            ("exits --idle 1e300", "--idle needs a number of seconds above 0 and up to 86400, and got 1e300"),
            ("exits --idle 1 --idle 2", "--idle is given twice: leave one of them out"),
            ("status --json=yes", "--json takes no value: leave it out"),
            ("status --json --json", "--json is given twice: leave one of them out"),
        ] {
            assert_eq!(parse_words(line).expect_err(line).sentence, sentence, "{line}");
        }
    }

    #[test]
    fn the_help_below_an_error_is_that_of_the_command() {
        let help = |line| parse_words(line).expect_err(line).help;
        assert!(help("exits --idl 3").contains("--idle <SECONDS>"));
        assert!(help("stats").contains("Commands:"));
    }

    #[test]
    fn bytes_that_are_no_text_are_refused() {
        use std::os::unix::ffi::OsStringExt;
        let arguments = [b"vidarctl".to_vec(), b"\xff".to_vec()].map(OsString::from_vec);
        let misuse = parse(&arguments).expect_err("there is no such command");
        assert!(misuse.sentence.starts_with("there is no command"), "{}", misuse.sentence);
    }
}
