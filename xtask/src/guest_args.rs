//! The options that describe guests on the command line. `--guest NAME` begins a guest, and the options up to the next
//! `--guest` belong to it.

use std::path::{Path, PathBuf};

use clap::error::{Error, ErrorKind};
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};

use crate::manifest::{DEFAULT_CMDLINE, Guest, Initrd, Kernel};

/// The user's own guests, in the order of the command line.
#[derive(Debug, Clone, Default)]
pub struct GuestArgs {
    /// The guests.
    pub guests: Vec<Guest>,
}

const OF_A_GUEST: [&str; 3] = ["kernel", "initrd", "cmdline"];

impl Args for GuestArgs {
    fn augment_args(command: Command) -> Command {
        let option = |id: &'static str, value: &'static str, help: &'static str| {
            Arg::new(id)
                .long(id)
                .value_name(value)
                .help(help)
                .action(ArgAction::Append)
                .help_heading("Own guests")
        };
        command
            .arg(option(
                "guest",
                "NAME",
                "Add a guest, which the three options after this one describe. Repeatable",
            ))
            .arg(option("kernel", "FILE", "The guest's kernel, a bzImage"))
            .arg(option(
                "initrd",
                "FILE",
                "The guest's initrd; \"built-in\" is the busybox shell. Repeatable, for an initrd of several parts [default: none]",
            ))
            .arg(option("cmdline", "TEXT", "The guest's command line [default: console=ttyS0,115200]"))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for GuestArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        let opened = positions(matches, "guest");
        // An option belongs to the last --guest before it.
        let group = |position: usize| opened.iter().rposition(|(start, _)| *start < position);
        let values: Vec<(&str, Vec<(usize, String)>)> =
            OF_A_GUEST.iter().map(|id| (*id, positions(matches, id))).collect();
        for (id, found) in &values {
            if found.iter().any(|(position, _)| group(*position).is_none()) {
                return Err(refuse(format!("--{id} must come after the --guest that it belongs to")));
            }
        }
        let all = |index: usize, id: &str| {
            let (_, found) = values.iter().find(|(other, _)| *other == id).expect("one of the three");
            let mine = found.iter().filter(move |(position, _)| group(*position) == Some(index));
            mine.map(|(_, value)| value.as_str())
        };
        let of = |index: usize, id: &str| -> Result<Option<String>, Error> {
            let mut mine = all(index, id);
            match (mine.next(), mine.next()) {
                (_, Some(_)) => Err(refuse(format!("the guest \"{}\" has --{id} twice", opened[index].1))),
                (one, None) => Ok(one.map(str::to_owned)),
            }
        };
        let mut guests = Vec::new();
        for (index, (_, name)) in opened.iter().enumerate() {
            let kernel = of(index, "kernel")?;
            let kernel = kernel.ok_or_else(|| refuse(format!("the guest \"{name}\" needs a --kernel")))?;
            guests.push(Guest {
                name: name.clone(),
                title: name.clone(),
                kernel: Kernel::File(PathBuf::from(kernel)),
                initrds: all(index, "initrd").map(|text| Initrd::parse(text, Path::new(""))).collect(),
                cmdline: of(index, "cmdline")?.unwrap_or_else(|| DEFAULT_CMDLINE.to_owned()),
                drivers: Vec::new(),
            });
        }
        Ok(Self { guests })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

fn positions(matches: &ArgMatches, id: &str) -> Vec<(usize, String)> {
    let indices = matches.indices_of(id).into_iter().flatten();
    indices.zip(matches.get_many::<String>(id).into_iter().flatten().cloned()).collect()
}

fn refuse(sentence: String) -> Error {
    Error::raw(ErrorKind::ValueValidation, sentence + "\n")
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        own: GuestArgs,
    }

    fn parse(line: &str) -> Result<Vec<Guest>, String> {
        let words = std::iter::once("iso").chain(line.split_whitespace());
        Line::try_parse_from(words).map(|line| line.own.guests).map_err(|error| error.to_string())
    }

    #[test]
    fn options_belong_to_the_guest_before_them() {
        let guests = parse("--guest a --kernel ka --cmdline x --guest b --initrd ib --kernel kb").unwrap();
        assert_eq!(guests.len(), 2);
        assert_eq!(guests[0].kernel, Kernel::File("ka".into()));
        assert_eq!((guests[0].initrds.len(), guests[0].cmdline.as_str()), (0, "x"));
        assert_eq!(guests[1].kernel, Kernel::File("kb".into()));
        assert_eq!(guests[1].initrds, [Initrd::File("ib".into())]);
        assert_eq!(guests[1].cmdline, DEFAULT_CMDLINE);
        assert!(parse("").unwrap().is_empty());
        let guests = parse("--guest a --kernel k --initrd ucode --initrd built-in").unwrap();
        assert_eq!(guests[0].initrds, [Initrd::File("ucode".into()), Initrd::BuiltIn]);
    }

    #[test]
    fn incomplete_and_misplaced_options_are_refused() {
        for (line, sentence) in [
            ("--kernel k", "--kernel must come after the --guest"),
            ("--kernel k --guest a", "--kernel must come after the --guest"),
            ("--guest a", "\"a\" needs a --kernel"),
            ("--guest a --kernel k --kernel l", "\"a\" has --kernel twice"),
        ] {
            let error = parse(line).unwrap_err();
            assert!(error.contains(sentence), "{error}");
        }
    }
}
