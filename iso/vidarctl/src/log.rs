//! Vidar's log: `vidarctl log`.

use crate::json::string;

/// Vidar's log, as far back as its ring reaches.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Log {
    /// The bytes of the log, which need not be UTF-8.
    pub bytes: Vec<u8>,
    /// The number of bytes that were overwritten before they could be read.
    pub lost: u64,
}

impl Log {
    /// Formats the log for people. The text ends with a line end. The log of the last start comes out of memory that
    /// others have written to since, so control characters, which could take over a terminal, are escaped.
    pub fn text(&self) -> String {
        let mut text = String::with_capacity(self.bytes.len() + 1);
        for character in String::from_utf8_lossy(&self.bytes).chars() {
            match character {
                '\n' | '\t' => text.push(character),
                _ if character.is_control() => text.extend(character.escape_default()),
                _ => text.push(character),
            }
        }
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        text
    }

    /// Formats the log as JSON, with its lines as strings.
    pub fn json(&self) -> String {
        let text = String::from_utf8_lossy(&self.bytes);
        let lines: Vec<_> = text.lines().map(string).collect();
        format!("{{\"lost_bytes\":{},\"lines\":[{}]}}\n", self.lost, lines.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_ends_with_a_line_end() {
        let log = Log { bytes: b"one\r\ntw\"o".to_vec(), lost: 3 };
        assert_eq!(log.text(), "one\\r\ntw\"o\n");
        assert_eq!(log.json(), "{\"lost_bytes\":3,\"lines\":[\"one\",\"tw\\\"o\"]}\n");
        assert_eq!(Log::default().text(), "");
        assert_eq!(Log::default().json(), "{\"lost_bytes\":0,\"lines\":[]}\n");
    }

    #[test]
    fn what_memory_holds_does_not_control_the_terminal() {
        let log = Log { bytes: "\x1b[2J\ta\u{9b}31m\x07\x7fü\n".into(), lost: 0 };
        assert_eq!(log.text(), "\\u{1b}[2J\ta\\u{9b}31m\\u{7}\\u{7f}ü\n");
        assert_eq!(
            log.json(),
            "{\"lost_bytes\":0,\"lines\":[\"\\u001b[2J\\u0009a\\u009b31m\\u0007\\u007fü\"]}\n"
        );
    }

    #[test]
    fn a_character_that_the_ring_cut_in_half_is_replaced() {
        let log = Log { bytes: b"\xb6r\n".to_vec(), lost: 1 };
        assert_eq!(log.text(), "\u{fffd}r\n");
    }
}
