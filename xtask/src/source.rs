//! What this checkout is: its commit, whether it differs from that commit, and its date. Two checkouts of one commit
//! then give the same programs and images, wherever and whenever these are made.

use std::env;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::paths;

/// The variable that tells programs the commit that they are built from, while cargo builds them.
pub const COMMIT_VARIABLE: &str = "VIDAR_COMMIT";
/// The variable that tells tools the date to write in place of today's, in seconds since 1970
/// (<https://reproducible-builds.org/specs/source-date-epoch/>).
pub const DATE_VARIABLE: &str = "SOURCE_DATE_EPOCH";

/// The number of digits by which a commit is named.
const DIGITS: usize = 12;
/// January 1, 1980, the first day that a FAT file system can name. It stands for the date of a source without a commit.
const FIRST_DAY: u64 = 315_532_800;

/// Returns the first digits of the commit that is checked out, with `+` after them if a tracked file differs from it.
/// Outside of git there is no commit.
pub fn commit() -> Option<String> {
    let hash = git(&["rev-parse", "--verify", "HEAD"])?;
    let digits = hash.get(..DIGITS)?;
    Some(if is_changed() { format!("{digits}+") } else { digits.to_owned() })
}

/// Returns true if a tracked file differs from the commit that is checked out.
pub fn is_changed() -> bool {
    git(&["status", "--porcelain", "--untracked-files=no"]).is_some_and(|changes| !changes.is_empty())
}

/// Returns the date of the source, in seconds since 1970: what the user's environment says, or else the date of the
/// commit, or else a fixed date.
pub fn date() -> Result<u64> {
    let asked = env::var(DATE_VARIABLE).ok();
    let of_commit = || git(&["log", "-1", "--format=%ct"])?.parse().ok();
    asked.map_or_else(|| Ok(of_commit().unwrap_or(FIRST_DAY)), |text| parse_date(&text))
}

fn parse_date(text: &str) -> Result<u64> {
    let date = text.parse().with_context(|| {
        format!(
            "{DATE_VARIABLE} is \"{text}\", which is no date: unset it, or give it the seconds since 1970"
        )
    })?;
    ensure!(
        date >= FIRST_DAY,
        "{DATE_VARIABLE} is {date}, which is before 1980: unset it, or give it a later date"
    );
    Ok(date)
}

/// Runs git in this checkout, as [`git_in`] does.
fn git(arguments: &[&str]) -> Option<String> {
    git_in(&paths::root(), arguments)
}

/// Runs git in the checkout `root`. Returns what it prints, or `None` if it fails or `root` is not a checkout. A source
/// that was unpacked into a folder of another project's checkout is none either.
fn git_in(root: &Path, arguments: &[&str]) -> Option<String> {
    if !root.join(".git").exists() {
        return None;
    }
    // Git refuses to read another user's checkout, since its settings can name programs. Whoever runs this program as
    // root in a user's checkout, by sudo, runs what the checkout says already.
    let trust = format!("safe.directory={}", root.display());
    // Without --no-optional-locks git may write its index, and disturb another git that works at the same time.
    let git = Command::new("git")
        .arg("--no-optional-locks")
        .args(["-c", &trust, "-C"])
        .arg(root)
        .args(arguments)
        .output();
    let output = git.ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::chown;

    use super::*;

    #[test]
    fn the_commit_of_another_users_checkout_is_known() {
        const ANOTHER: u32 = 12345;
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let make = |arguments: &[&str]| {
            let mut git = Command::new("git");
            git.arg("-C").arg(root).args(["-c", "user.name=a", "-c", "user.email=b"]).args(arguments);
            assert!(git.output().unwrap().status.success(), "{arguments:?}");
        };
        make(&["init", "--quiet"]);
        make(&["commit", "--quiet", "--allow-empty", "--message", "first"]);
        // Only root can give its files away. As another user this test reads a checkout of that user's own.
        let _ = [root.to_path_buf(), root.join(".git")].map(|path| chown(path, Some(ANOTHER), None));
        assert_eq!(git_in(root, &["log", "-1", "--format=%s"]).as_deref(), Some("first"));
    }

    #[test]
    fn a_date_is_a_number_of_seconds_from_1980_on() {
        assert_eq!(parse_date("1700000000").unwrap(), 1_700_000_000);
        for (text, sentence) in [
            ("yesterday", "which is no date"),
            ("", "which is no date"),
            ("-1", "which is no date"),
            ("0", "which is before 1980"),
        ] {
            let error = format!("{:#}", parse_date(text).unwrap_err());
            assert!(error.contains(sentence), "{error}");
        }
    }
}
