//! The manual page vidarctl(1) and the completion of its command line in bash, both from the command line's own table.

use anyhow::{Context, Result};
use clap::{Arg, Command};
use clap_complete::{Shell, generate};
use clap_mangen::Man;

use super::date;
use super::page::Page;
use super::version::Version;

/// Returns the source of vidarctl(1). The program's commands are described in the page itself.
pub fn manual(version: &Version, date: u64) -> Result<Vec<u8>> {
    let command = vidarctl::command();
    let page = Man::new(command.clone()).title("VIDARCTL").section("1").manual("Vidar");
    let page = page.date(date::formatted(date, "+%F")?).source(format!("Vidar {version}"));
    let mut source = Vec::new();
    page.render_title(&mut source)?;
    page.render_name_section(&mut source)?;
    page.render_synopsis_section(&mut source)?;
    page.render_description_section(&mut source)?;
    page.render_options_section(&mut source)?;
    let mut rest = Page::part();
    commands(&mut rest, &command);
    exit_status(&mut rest, &command)?;
    rest.section("SEE ALSO");
    rest.paragraph("`vidar`(7)");
    source.extend(rest.source().into_bytes());
    Ok(source)
}

/// Adds the commands, each with its own options.
fn commands(page: &mut Page, command: &Command) {
    page.section("COMMANDS");
    page.paragraph("This is what each command prints:");
    for command in command.get_subcommands() {
        let options: Vec<_> = command.get_arguments().filter(|option| !option.is_global_set()).collect();
        let usage = options.iter().map(|option| format!(" [{}]", written(option))).collect::<String>();
        let about = command.get_about().map(ToString::to_string).unwrap_or_default();
        page.item(&format!("`{}`{usage}", command.get_name()), &about);
        if options.is_empty() {
            continue;
        }
        page.indent();
        for option in options {
            let help = option.get_help().map(ToString::to_string).unwrap_or_default();
            page.item(&written(option), &help);
        }
        page.outdent();
    }
}

/// Returns an option as one writes it, with a word for its value.
fn written(option: &Arg) -> String {
    let name = option.get_long().map_or_else(|| option.get_id().to_string(), |name| format!("--{name}"));
    let takes_value = option.get_action().takes_values();
    let value = option.get_value_names().and_then(|names| names.first()).filter(|_| takes_value);
    match value {
        Some(value) => format!("`{name}` {value}"),
        None => format!("`{name}`"),
    }
}

/// Adds the exit statuses, which are below a heading in the text after the help: `  0  what it means`. Other lines
/// there are headings of more statuses.
fn exit_status(page: &mut Page, command: &Command) -> Result<()> {
    page.section("EXIT STATUS");
    for line in statuses(command)?.lines() {
        match line.trim_start().split_once("  ") {
            Some((status, meaning)) => page.item(&format!("`{status}`"), meaning.trim()),
            None => page.paragraph(line),
        }
    }
    Ok(())
}

/// Returns the lines with the exit statuses.
fn statuses(command: &Command) -> Result<String> {
    let text = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let (_, statuses) =
        text.split_once("Exit status:\n").context("vidarctl's help names no exit statuses")?;
    Ok(statuses.to_owned())
}

/// Returns the completion for bash.
pub fn completion() -> Vec<u8> {
    let mut script = Vec::new();
    generate(Shell::Bash, &mut vidarctl::command(), "vidarctl", &mut script);
    script
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_command_and_option_is_in_the_manual_and_the_completion() {
        let page = String::from_utf8(manual(&Version::new(Some("1")).unwrap(), 0).unwrap()).unwrap();
        let script = String::from_utf8(completion()).unwrap();
        for command in vidarctl::command().get_subcommands() {
            assert!(page.contains(&format!(".TP\n\\fB{}\\fR", command.get_name())), "{page}");
            assert!(script.contains(command.get_name()), "{script}");
            for option in command.get_arguments().filter_map(Arg::get_long) {
                assert!(page.contains(&format!("\\-\\-{}", option.replace('-', "\\-"))), "{page}");
                assert!(script.contains(&format!("--{option}")), "{script}");
            }
        }
        assert!(!page.contains("vidarctl\\-status(1)"), "there is no such page: {page}");
    }

    #[test]
    fn each_exit_status_is_in_the_manual() {
        let page = String::from_utf8(manual(&Version::new(Some("1")).unwrap(), 0).unwrap()).unwrap();
        let (_, section) = page.split_once(".SH \"EXIT STATUS\"\n").unwrap();
        let statuses = statuses(&vidarctl::command()).unwrap();
        let lines: Vec<_> = statuses.lines().filter_map(|line| line.trim_start().split_once("  ")).collect();
        assert!(lines.len() >= 3, "{statuses}");
        for (status, _) in &lines {
            assert!(section.contains(&format!(".TP\n\\fB{status}\\fR\n")), "{section}");
        }
        // What is no status is a heading.
        assert_eq!(section.matches(".TP\n").count(), lines.len(), "{section}");
    }
}
