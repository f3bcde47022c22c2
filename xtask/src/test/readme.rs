//! Checks that the tests exist which the README and the pages of `hv/doc` name, in commands and in the table of
//! machines, and that the README's table of commands is that of `vidarctl`.

use std::path::{Path, PathBuf};

use super::{Extent, names};
use crate::paths;

/// The pages that name tests in commands.
const PAGES: [&str; 3] = ["README.md", "hv/doc/limits.md", "hv/doc/testing.md"];
/// The page with the table of machines, whose last column has the tests.
const MACHINES: &str = "hv/doc/machines.md";
/// The page with the attacks that are stopped, and the last line before that table.
const THREATS: (&str, &str) = ("hv/doc/threat-model.md", "## What is stopped");
/// The text of that column in rows without a test.
const NOT_TRIED: &str = "not tried";

fn read(page: &str) -> String {
    std::fs::read_to_string(paths::root().join(page)).unwrap()
}

/// Returns true if some test has `part` in its name.
fn exists(part: &str) -> bool {
    let extent = Extent {
        distribution: true,
        newest_kernels: true,
        lost_machine: true,
        nested: true,
        reproducible: true,
        dump: true,
        rounds: 1,
        load: 0,
    };
    names(extent).iter().any(|(name, _)| name.contains(part))
}

#[test]
fn the_filters_of_commands_find_tests() {
    for page in PAGES {
        let text = read(page).split_whitespace().collect::<Vec<_>>().join(" ");
        let filters = text.split("--filter ").skip(1);
        let filters: Vec<_> = filters.filter_map(|rest| rest.split(&['`', ' '][..]).next()).collect();
        assert!(!filters.is_empty(), "{page} has no command with a filter any more");
        for filter in filters {
            assert!(exists(filter), "{page}: no test has {filter:?} in its name");
        }
    }
}

#[test]
fn each_machine_of_the_table_has_tests() {
    let text = read(MACHINES);
    let rows = text.lines().filter(|line| line.starts_with('|'));
    let rows: Vec<_> = rows.skip(2).collect();
    assert!(rows.len() > 10, "the table has {} rows", rows.len());
    for row in rows {
        let cell = row.trim_end_matches('|').rsplit('|').next().unwrap_or_default().trim();
        let quoted = cell.split('`').skip(1).step_by(2);
        let tests: Vec<_> = quoted.filter(|word| !word.starts_with("--")).collect();
        assert!(cell == NOT_TRIED || !tests.is_empty(), "neither tests nor {NOT_TRIED:?}: {row}");
        for test in tests {
            assert!(exists(test), "no test has {test:?} in its name: {row}");
        }
    }
}

/// Each attack that is claimed to be stopped has a test in a machine, or one on the host, which is a function.
#[test]
fn each_attack_that_is_stopped_has_tests() {
    let (page, heading) = THREATS;
    let text = read(page);
    let (_, table) = text.split_once(heading).expect("the page has the table");
    let rows =
        table.lines().skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'));
    let rows: Vec<_> = rows.skip(2).collect();
    assert!(rows.len() > 5, "the table has {} rows", rows.len());
    let sources = sources(&paths::root().join("hv/core"));
    for row in rows {
        let cell = row.trim_end_matches('|').rsplit('|').next().unwrap_or_default();
        let tests: Vec<_> = cell.split('`').skip(1).step_by(2).collect();
        assert!(!tests.is_empty(), "no test: {row}");
        for test in tests {
            let on_the_host = format!("fn {test}(");
            assert!(exists(test) || sources.contains(&on_the_host), "there is no test {test:?}: {row}");
        }
    }
}

/// Returns the text of all sources in a folder.
fn sources(folder: &Path) -> String {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let text = |path: PathBuf| match path.extension() {
        _ if path.is_dir() => sources(&path),
        Some(end) if end == "rs" => std::fs::read_to_string(path).unwrap(),
        _ => String::new(),
    };
    entries.map(text).collect()
}

/// The README's table of commands is that from which `vidarctl --help` is made. It may go on where the help ends, and
/// it names each option of a command.
#[test]
fn the_readme_has_every_command_of_vidarctl() {
    let readme = read("README.md");
    let rows = readme.lines().filter_map(|line| line.strip_prefix("| `vidarctl ")?.split_once("` | "));
    let rows: Vec<_> = rows.collect();
    let command = vidarctl::command();
    let commands: Vec<_> = command.get_subcommands().filter(|command| !command.is_hide_set()).collect();
    let names: Vec<_> = commands.iter().map(|command| command.get_name()).collect();
    assert_eq!(rows.iter().map(|(name, _)| *name).collect::<Vec<_>>(), names);
    for (command, (name, said)) in commands.iter().zip(rows) {
        let about = command.get_about().expect("each command has a help").to_string();
        assert!(
            said.replace('`', "").starts_with(&about),
            "vidarctl {name} is {about:?}, and {said:?} in the README"
        );
        for option in command.get_arguments().filter_map(|option| option.get_long()) {
            assert!(
                said.contains(&format!("`--{option}")),
                "the README does not name --{option} of vidarctl {name}"
            );
        }
    }
}
