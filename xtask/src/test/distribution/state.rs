//! What is compared of a Debian bare and under Vidar.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};

use crate::console::Console;
use crate::test::smp::in_time;
use crate::test::transparency::{messages, without_long_numbers};

/// What a Debian says of itself once it is up.
#[derive(Debug, Clone)]
pub struct State {
    /// The state of systemd: running, or degraded.
    systemd: String,
    /// The units that have failed.
    failed: String,
    /// The kernel's messages with their levels.
    messages: String,
    /// The warnings and errors in the journal of this boot, of the kernel and of all programs.
    journal: String,
    /// The kernel's command line.
    command_line: Vec<u8>,
}

impl State {
    /// Collects it, after systemd has started everything.
    pub fn collect(console: &mut Console) -> Result<Self> {
        let systemd = console.run("systemctl is-system-running --wait || true")?;
        let failed = console.run("systemctl --failed --plain --no-legend --no-pager")?;
        let messages = in_time(&console.run("dmesg -r")?);
        let journal = console.run("journalctl --boot --quiet --priority=warning --output=cat --no-pager")?;
        let command_line = bytes(&console.run("od -An -v -tx1 /proc/cmdline")?)?;
        Ok(Self { systemd, failed, messages, journal: in_time(&journal), command_line })
    }

    /// Checks that the same units run under Vidar.
    pub fn same_units(&self, vidar: &Self) -> Result<()> {
        ensure!(
            !vidar.systemd.is_empty() && vidar.systemd == self.systemd,
            "systemd is {} under Vidar, and {} on the bare machine",
            vidar.systemd,
            self.systemd
        );
        ensure!(
            vidar.failed == self.failed,
            "the units that failed under Vidar are {}, and on the bare machine {}",
            vidar.failed,
            self.failed
        );
        Ok(())
    }

    /// Checks that the kernel warns of nothing more under Vidar.
    pub fn same_messages(&self, vidar: &Self) -> Result<()> {
        messages(&self.messages, &vidar.messages)
    }

    /// Checks that nothing else warns of anything more under Vidar.
    pub fn same_journal(&self, vidar: &Self) -> Result<()> {
        let known = warnings(&self.journal);
        let new: Vec<_> = warnings(&vidar.journal).difference(&known).cloned().collect();
        ensure!(new.is_empty(), "only under Vidar: {}", new.join("; "));
        Ok(())
    }

    /// Checks that Linux has the same command line under Vidar, byte by byte, with the quotes and the letter in it that
    /// is not of ASCII.
    pub fn same_command_line(&self, vidar: &Self) -> Result<()> {
        let shown = String::from_utf8_lossy(&self.command_line);
        ensure!(
            shown.contains("\"vidar.quoted=a  b\"") && shown.contains("vidar.utf8=ä"),
            "the bare command line is {shown}"
        );
        ensure!(
            self.command_line == vidar.command_line,
            "the command line is {} under Vidar, and {shown} on the bare machine",
            String::from_utf8_lossy(&vidar.command_line)
        );
        Ok(())
    }
}

/// Returns the lines without long numbers and without numbers of processes.
fn warnings(journal: &str) -> BTreeSet<String> {
    let line = |line: &str| line.split_whitespace().map(without_long_numbers).collect::<Vec<_>>().join(" ");
    journal.lines().map(line).collect()
}

/// Returns the bytes that `od` has printed.
fn bytes(printed: &str) -> Result<Vec<u8>> {
    let byte = |word| u8::from_str_radix(word, 16).with_context(|| format!("od says: {printed}"));
    printed.split_whitespace().map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(command_line: &str) -> State {
        let [systemd, failed, messages, journal] =
            ["running\n", "", "<5>[ 0.0] Linux version 6.1\n", "old\n"].map(str::to_owned);
        State { systemd, failed, messages, journal, command_line: command_line.as_bytes().to_vec() }
    }

    const COMMAND_LINE: &str = "BOOT_IMAGE=/vmlinuz root=x \"vidar.quoted=a  b\" vidar.utf8=ä\n";

    #[test]
    fn any_difference_is_found() {
        let bare = state(COMMAND_LINE);
        let checks = [State::same_units, State::same_messages, State::same_journal, State::same_command_line];
        assert!(checks.iter().all(|check| check(&bare, &bare.clone()).is_ok()));
        let others = [
            State { systemd: "degraded\n".to_owned(), ..bare.clone() },
            State { messages: bare.messages.clone() + "<4>[ 1.0] new\n", ..bare.clone() },
            State { journal: "old\nnew\n".to_owned(), ..bare.clone() },
            state(&COMMAND_LINE.replace("a  b", "a b")),
        ];
        for (place, other) in others.iter().enumerate() {
            let failed: Vec<_> = checks.iter().map(|check| check(&bare, other).is_err()).collect();
            assert_eq!(failed.iter().position(|failed| *failed), Some(place), "{other:?}");
        }
        let failed = State { failed: "x.service\n".to_owned(), ..bare.clone() };
        assert!(bare.same_units(&failed).is_err());
        let plain = state("root=x\n");
        assert!(plain.same_command_line(&plain.clone()).is_err(), "nothing that is hard to hand over");
    }

    #[test]
    fn bytes_are_read() {
        assert_eq!(bytes(" 61 c3 a4\n 0a\n").unwrap(), "aä\n".as_bytes());
        assert!(bytes("od: /proc/cmdline: No such file").is_err());
    }
}
