//! Checks that the tests exist which the README and the pages of `hv/doc` name, in commands and in the table of machines.

use super::{Extent, names};
use crate::paths;

/// The pages that name tests in commands.
const PAGES: [&str; 3] = ["README.md", "hv/doc/limits.md", "hv/doc/testing.md"];
/// The page with the table of machines, whose last column has the tests.
const MACHINES: &str = "hv/doc/machines.md";
/// The text of that column in rows without a test.
const NOT_TRIED: &str = "not tried";

fn read(page: &str) -> String {
    std::fs::read_to_string(paths::root().join(page)).unwrap()
}

/// Returns true if some test has `part` in its name.
fn exists(part: &str) -> bool {
    let extent =
        Extent { distribution: true, newest_kernels: true, lost_machine: true, nested: true, load: 0 };
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
