//! The commit that a program was built from.

use core::fmt;

/// The number of hexadecimal digits by which a commit is named.
const DIGITS: usize = 12;

/// A commit of Vidar's source. Its text is the first 12 hexadecimal digits of the commit's hash, with `+` after them if
/// the source differed from the commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Commit {
    digits: u64,
    changed: bool,
}

impl Commit {
    /// Returns the commit with this text, or `None` if the text has another form.
    pub const fn parse(text: &str) -> Option<Self> {
        let (digits, changed) = match text.as_bytes() {
            [digits @ .., b'+'] => (digits, true),
            digits => (digits, false),
        };
        if digits.len() != DIGITS {
            return None;
        }
        let (mut number, mut index) = (0, 0);
        while index < DIGITS {
            let digit = match digits[index] {
                digit @ b'0'..=b'9' => digit - b'0',
                digit @ b'a'..=b'f' => digit - b'a' + 10,
                _ => return None,
            };
            number = number << 4 | digit as u64;
            index += 1;
        }
        Self::from_raw(number, changed as u64)
    }

    /// Returns the commit that RBX and RCX hold, or `None` if they hold none.
    pub const fn from_raw(rbx: u64, rcx: u64) -> Option<Self> {
        if rbx == 0 || rbx >> (4 * DIGITS) != 0 {
            return None;
        }
        Some(Self { digits: rbx, changed: rcx != 0 })
    }

    /// Returns the commit as RBX and RCX hold it.
    pub const fn to_raw(self) -> (u64, u64) {
        (self.digits, self.changed as u64)
    }
}

impl fmt::Display for Commit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { digits, changed } = self;
        write!(f, "{digits:0DIGITS$x}{}", if *changed { "+" } else { "" })
    }
}

/// A version, and the commit if it is known, for people: `0.1.0 (0123456789ab)`.
#[derive(Debug, Clone, Copy)]
pub struct Release<V>(pub V, pub Option<Commit>);

impl<V: fmt::Display> fmt::Display for Release<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(version, commit) = self;
        write!(f, "{version}")?;
        commit.map_or(Ok(()), |commit| write!(f, " ({commit})"))
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::string::ToString;

    use super::*;

    #[test]
    fn a_commit_comes_back_from_its_text_and_from_registers() {
        for text in ["0123456789ab", "0123456789ab+", "fedcba987654", "000000000001+"] {
            let commit = Commit::parse(text).unwrap();
            assert_eq!(commit.to_string(), text);
            let (rbx, rcx) = commit.to_raw();
            assert_eq!(Commit::from_raw(rbx, rcx), Some(commit));
        }
    }

    #[test]
    fn other_texts_and_numbers_are_no_commits() {
        for text in ["", "+", "0123456789a", "0123456789abc", "0123456789AB", "0123456789ab-", "000000000000"]
        {
            assert_eq!(Commit::parse(text), None, "{text}");
        }
        assert_eq!(Commit::from_raw(0, 0), None);
        assert_eq!(Commit::from_raw(1 << 48, 0), None);
    }

    #[test]
    fn a_release_without_a_commit_is_its_version() {
        assert_eq!(Release("0.1.0", None).to_string(), "0.1.0");
        let commit = Commit::parse("0123456789ab+");
        assert_eq!(Release("0.1.0", commit).to_string(), "0.1.0 (0123456789ab+)");
    }
}
