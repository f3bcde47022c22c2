//! Dates as text.

use std::process::Command;

use anyhow::{Context, Result, ensure};

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
}
