//! The date of what is built: that of the commit, so that two builds of a commit have the same bytes.

use std::env;
use std::fs;
use std::process::Command;
use std::time::UNIX_EPOCH;

use anyhow::{Context, Result, ensure};

use crate::paths;

/// Returns the date in seconds since 1970: `SOURCE_DATE_EPOCH` where it is set, the date of the commit in a clone, and
/// that of `Cargo.lock` elsewhere, as in an unpacked archive.
pub fn of_source() -> Result<u64> {
    if let Some(text) = env::var_os("SOURCE_DATE_EPOCH") {
        let seconds = text.to_str().and_then(|text| text.parse().ok());
        return seconds.with_context(|| {
            format!("SOURCE_DATE_EPOCH is {}, but it has to be a number of seconds", text.display())
        });
    }
    let mut git = Command::new("git");
    git.args(["log", "-1", "--format=%ct"]).current_dir(paths::root());
    if let Ok(output) = git.output()
        && output.status.success()
        && let Ok(seconds) = String::from_utf8_lossy(&output.stdout).trim().parse()
    {
        return Ok(seconds);
    }
    let date = fs::metadata(paths::root().join("Cargo.lock"))?.modified()?;
    Ok(date.duration_since(UNIX_EPOCH)?.as_secs())
}

/// Formats a date by `format` of the program `date`, in English and in UTC.
pub fn formatted(seconds: u64, format: &str) -> Result<String> {
    let mut date = Command::new("date");
    date.env("LC_ALL", "C").args(["--utc", &format!("--date=@{seconds}"), format]);
    let output = date.output().context("cannot run date")?;
    ensure!(output.status.success(), "date failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_do_not_depend_on_the_place() {
        assert_eq!(formatted(0, "+%a, %d %b %Y %T %z").unwrap(), "Thu, 01 Jan 1970 00:00:00 +0000");
    }

    #[test]
    fn the_source_has_a_date_in_this_century() {
        assert!(of_source().unwrap() > 1_700_000_000);
    }
}
