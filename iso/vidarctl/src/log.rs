//! What Vidar has logged: `vidarctl log`.

use crate::json::string;

/// The log, as far back as Vidar's ring goes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Log {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// How many bytes were overwritten before they could be read.
    pub lost: u64,
}

impl Log {
    /// For people: the text, with a line end at its end.
    pub fn text(&self) -> String {
        let mut text = String::from_utf8_lossy(&self.bytes).into_owned();
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        text
    }

    /// For programs: the lines.
    pub fn json(&self) -> String {
        let text = self.text();
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
        assert_eq!(log.text(), "one\r\ntw\"o\n");
        assert_eq!(log.json(), "{\"lost_bytes\":3,\"lines\":[\"one\",\"tw\\\"o\"]}\n");
        assert_eq!(Log::default().text(), "");
        assert_eq!(Log::default().json(), "{\"lost_bytes\":0,\"lines\":[]}\n");
    }

    #[test]
    fn a_character_cut_in_half_by_the_ring_does_no_harm() {
        let log = Log { bytes: b"\xb6r\n".to_vec(), lost: 1 };
        assert_eq!(log.text(), "\u{fffd}r\n");
    }
}
