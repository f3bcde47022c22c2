//! Wrong command lines: a sentence for each error that says what is wrong and what to do.

use std::error::Error as _;
use std::ffi::OsString;

use clap::Command;
use clap::error::{ContextKind, ContextValue, Error, ErrorKind};

/// A wrong command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misuse {
    /// Says what is wrong and what to do.
    pub sentence: String,
    /// The help of the command that was given, or that of the program.
    pub help: String,
}

impl Misuse {
    /// Explains an error of the command line `command`, which was given these arguments.
    pub fn new(error: &Error, mut command: Command, arguments: &[OsString]) -> Self {
        let sentence = sentence(error, &command);
        command.build();
        let given = arguments.iter().skip(1).find_map(|word| command.find_subcommand(word).cloned());
        Self { sentence, help: given.unwrap_or(command).render_help().to_string() }
    }
}

/// Returns the sentence for an error of the command line `command`.
fn sentence(error: &Error, command: &Command) -> String {
    let argument = text(error, ContextKind::InvalidArg).unwrap_or_default();
    // With the name of its value, an option is "--idle <SECONDS>".
    let option = argument.split(' ').next().unwrap_or_default();
    match error.kind() {
        ErrorKind::MissingSubcommand => "a command is missing: give one of the commands below".into(),
        ErrorKind::InvalidSubcommand => {
            let word = text(error, ContextKind::InvalidSubcommand).unwrap_or_default();
            format!("there is no command {word}: give one of the commands below")
        }
        ErrorKind::UnknownArgument => match owner(option, command) {
            _ if !option.starts_with('-') => format!("only one command can be given: leave out {option}"),
            Some(owner) => format!(
                "{option} is an option of the command {owner} only: leave it out, or write it after {owner}"
            ),
            None => format!("there is no option {option}: give one of the options below"),
        },
        ErrorKind::ArgumentConflict => match text(error, ContextKind::PriorArg) {
            Some(other) if other != argument => {
                let other = other.split(' ').next().unwrap_or_default();
                format!("{option} and {other} cannot be combined: leave one of them out")
            }
            _ => format!("{option} is given twice: leave one of them out"),
        },
        ErrorKind::InvalidValue => format!("{option} needs a value: write it after the option"),
        ErrorKind::ValueValidation => match error.source() {
            Some(needs) => format!("{option} needs {needs}"),
            None => format!("{option} has a value that it cannot have: give another one"),
        },
        ErrorKind::TooManyValues => format!("{option} takes no value: leave it out"),
        _ => {
            let text = error.to_string();
            let first = text.lines().next().unwrap_or_default();
            first.strip_prefix("error: ").unwrap_or(first).to_owned()
        }
    }
}

/// Returns the name of the command that has this option.
fn owner<'a>(option: &str, command: &'a Command) -> Option<&'a str> {
    let name = option.strip_prefix("--")?.split('=').next();
    let has = |command: &&Command| command.get_arguments().any(|argument| argument.get_long() == name);
    command.get_subcommands().find(has).map(Command::get_name)
}

/// Returns the text in the error that has this meaning. Of several texts it is the first.
fn text(error: &Error, kind: ContextKind) -> Option<&str> {
    match error.get(kind)? {
        ContextValue::String(text) => Some(text),
        ContextValue::Strings(texts) => texts.first().map(String::as_str),
        _ => None,
    }
}
