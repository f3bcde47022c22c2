//! What this checkout is: its commit, and whether it differs from that commit.

use std::process::Command;

use crate::paths;

/// The variable that tells programs the commit that they are built from, while cargo builds them.
pub const COMMIT_VARIABLE: &str = "VIDAR_COMMIT";

/// The number of digits by which a commit is named.
const DIGITS: usize = 12;

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

/// Runs git in the checkout. Returns what it prints, or `None` if it fails or this is not a checkout. A source that was
/// unpacked into a folder of another project's checkout is none either.
fn git(arguments: &[&str]) -> Option<String> {
    let root = paths::root();
    if !root.join(".git").exists() {
        return None;
    }
    // Without this option git may write its index, and disturb another git that works at the same time.
    let git = Command::new("git").arg("--no-optional-locks").arg("-C").arg(root).args(arguments).output();
    let output = git.ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim_end().to_owned())
}
