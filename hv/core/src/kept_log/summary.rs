//! The main lines of a report, which the next start shows.

use core::fmt;

use super::log::Log;
use crate::loader::text::Text;

/// The most bytes of a report that are looked at.
const MOST_BYTES: usize = 2048;
/// The most lines that are shown after the first, so that the log of this start stays on a screen of 25 lines.
const MOST_LINES: usize = 11;
/// What is shown of a report that is longer than the memory of the log, in place of its first line.
const BEGINNING_LOST: &[u8] =
    b"a report whose beginning is lost, since it is longer than the memory for it\n";
/// What Vidar writes before each message of a report.
const LABEL: &[u8] = b"vidar: error: ";
/// What the further lines of a message begin with.
const INDENTATION: &[u8] = b"  ";

/// What a line begins with that continues the one before: [`crate::console::wrap`].
const CONTINUATION: &[u8] = b"    ";

/// A part of a report, displayed as what has happened and the lines after that, each with a mark. Its text is from
/// outside: memory that others have written to may look like a log.
#[derive(Debug)]
pub struct Summary {
    /// What has happened, and then the lines.
    bytes: [u8; MOST_BYTES],
    length: usize,
    goes_on: bool,
}

impl Summary {
    /// Returns what the report in `log` begins with and the start of its main part, or the beginning of a report that
    /// has no main part. Returns `None` if there is no report.
    pub fn of(log: &Log) -> Option<Self> {
        let mut bytes = [0; MOST_BYTES];
        let report = log.report()?;
        let (mut start, mut length) = log.read(report, &mut bytes);
        let mut head = 0;
        let main = log.main();
        if start > report {
            head = BEGINNING_LOST.len();
            bytes[..head].copy_from_slice(BEGINNING_LOST);
            (start, length) = log.read(main.unwrap_or(start), &mut bytes[head..]);
        } else if let Some(main) = main {
            head = first_message(&bytes[..length]);
            (start, length) = log.read(main, &mut bytes[head..]);
        }
        let goes_on = start.saturating_add(length as u64) < log.positions().end;
        Some(Self { bytes, length: head + length, goes_on })
    }

    fn all(&self) -> impl Iterator<Item = &[u8]> {
        let lines = self.bytes[..self.length].split(|byte| *byte == b'\n');
        lines.map(|line| line.strip_prefix(LABEL).unwrap_or(line)).filter(|line| !line.is_empty())
    }
}

/// Returns the length of the first line of `text`, with the lines that continue it.
fn first_message(text: &[u8]) -> usize {
    let mut lines = text.split_inclusive(|byte| *byte == b'\n');
    let first = lines.next().map_or(0, <[u8]>::len);
    first + lines.take_while(|line| line.starts_with(CONTINUATION)).map(<[u8]>::len).sum::<usize>()
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut lines = self.all();
        write!(f, "{}", Text(lines.next().unwrap_or_default()))?;
        for line in lines.by_ref().take(MOST_LINES) {
            // The mark takes the place of a line's indentation, so that no line becomes wider than it was.
            write!(f, "\n| {}", Text(line.strip_prefix(INDENTATION).unwrap_or(line)))?;
        }
        if self.goes_on || lines.next().is_some() {
            f.write_str("\n| ... all of it is in `vidarctl log --last`")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kept_log::log::LOG_BYTES;

    /// Returns what the next start shows of a report. Its main part, if it has one, comes after its first part.
    fn summary_of(parts: &[&[u8]]) -> String {
        let mut log = Box::new(Log::filled(0));
        log.begin(1);
        assert!(Summary::of(&log).is_none());
        log.push(b"vidar: before\n");
        log.begin_report();
        for (index, part) in parts.iter().enumerate() {
            if index > 0 {
                log.begin_main();
            }
            log.push(part);
        }
        Summary::of(&log).unwrap().to_string()
    }

    fn summary(report: &[u8]) -> String {
        summary_of(&[report])
    }

    #[test]
    fn a_summary_has_the_first_lines_of_the_report() {
        assert_eq!(
            summary(b"vidar: error: it crashed\n  why\nvidar: error: that was all\n"),
            "it crashed\n| why\n| that was all"
        );
        assert_eq!(summary(b""), "");
        let full = "line\n".repeat(MOST_LINES + 1);
        assert_eq!(summary(full.as_bytes()).lines().count(), MOST_LINES + 1);
        let long = summary(format!("{full}line\n").as_bytes());
        assert_eq!(long.lines().count(), MOST_LINES + 2);
        assert!(long.ends_with("\n| ... all of it is in `vidarctl log --last`"));
        assert!(summary(&[b'x'; 3000]).ends_with("--last`"));
    }

    #[test]
    fn a_summary_has_the_main_part_if_the_report_has_one() {
        let state = "  rip 1\n".repeat(300);
        let first = format!("vidar: error: it crashed: of what has a\n    second line\n{state}");
        assert_eq!(
            summary_of(&[first.as_bytes(), b"vidar: error: functions:\n  panic+0x1\nvidar: error: reset\n"]),
            "it crashed: of what has a\n|   second line\n| functions:\n| panic+0x1\n| reset"
        );
        let long = summary_of(&[b"crash\nstate\n", "line\n".repeat(1000).as_bytes()]);
        assert!(long.starts_with("crash\n| line\n") && long.ends_with("--last`"), "{long}");
        assert_eq!(long.lines().count(), MOST_LINES + 2);
        assert_eq!(summary_of(&[&[b'x'; 3000], b"main\n"]).lines().count(), 2);
    }

    #[test]
    fn a_summary_says_that_the_beginning_of_a_long_report_is_lost() {
        let state = "  cpu\n".repeat(LOG_BYTES / 6);
        let long = summary_of(&[state.as_bytes(), b"functions:\n  panic+0x1\n"]);
        assert_eq!(long.lines().collect::<Vec<_>>()[1..], ["| functions:", "| panic+0x1"]);
        assert!(long.starts_with("a report whose beginning is lost, "), "{long}");
        assert!(summary(state.as_bytes()).starts_with("a report whose beginning is lost, "));
    }

    #[test]
    fn text_from_outside_does_not_control_the_screen() {
        assert_eq!(summary(b"\x1b[2Jcrash\n\xff\x07\n"), "\\u{1b}[2Jcrash\n| \\xff\\u{7}");
    }
}
