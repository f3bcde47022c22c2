//! What is said to gdb. The last packet is kept until gdb has got it, since the serial line may spoil it.

use alloc::vec::Vec;
use core::convert::Infallible;

use gdbstub::conn::Connection;

use super::packet::SIZE;

/// The size of the longest packet that is kept: as many contents as gdb asks for, `$`, `#`, and a checksum of two
/// digits.
const LONGEST: usize = SIZE + 4;
/// The packet that is sent in place of one that was too long to be kept: an error.
const LOST: &[u8] = b"$E01#a6";

/// A line to gdb that knows what gdb has got of it.
pub struct Answers<C> {
    line: C,
    /// The last packet, or what has been sent of it so far.
    last: Vec<u8>,
    /// The number of packets of which gdb has not yet said that they have come.
    unheard: usize,
    /// True while what is written is not sent.
    pub is_muted: bool,
}

impl<C: Connection<Error = Infallible>> Answers<C> {
    /// Returns a line on which nothing has been sent.
    pub const fn new(line: C) -> Self {
        Self { line, last: Vec::new(), unheard: 0, is_muted: false }
    }

    /// Notes that gdb has sent a request. It does so only after it has dealt with all earlier answers.
    pub const fn asked(&mut self) {
        self.unheard = 0;
    }

    /// Notes that the oldest packet that gdb has not acknowledged has come.
    pub const fn acknowledged(&mut self) {
        self.unheard = self.unheard.saturating_sub(1);
    }

    /// Sends the last packet again if it has not come whole. If an older one has not, nothing is sent: that was a line
    /// of text for the user, and gdb would take the last packet, which it has got as well, for the answer to its next
    /// request.
    pub fn refused(&mut self) {
        if self.unheard == 1 {
            let packet = if self.is_whole() { &self.last } else { LOST };
            for byte in packet {
                let Ok(()) = self.line.write(*byte);
            }
        } else {
            self.acknowledged();
        }
    }

    /// Returns true if no packet is being sent. In its contents there is no `#`.
    fn is_whole(&self) -> bool {
        self.last.is_empty() || self.last.iter().rev().nth(2) == Some(&b'#')
    }
}

impl<C: Connection<Error = Infallible>> Connection for Answers<C> {
    type Error = Infallible;

    fn write(&mut self, byte: u8) -> Result<(), Infallible> {
        if self.is_muted {
            return Ok(());
        }
        // In a packet there is no other `$`. If the one before has no end, it never gets one.
        if byte == b'$' {
            self.last.clear();
            self.unheard += 1;
            self.last.push(byte);
        } else if !self.is_whole() && self.last.len() < LONGEST {
            self.last.push(byte);
        }
        self.line.write(byte)
    }

    fn flush(&mut self) -> Result<(), Infallible> {
        self.line.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A line that keeps what is sent.
    struct Sent(Vec<u8>);

    impl Connection for Sent {
        type Error = Infallible;

        fn write(&mut self, byte: u8) -> Result<(), Infallible> {
            self.0.push(byte);
            Ok(())
        }

        fn flush(&mut self) -> Result<(), Infallible> {
            Ok(())
        }
    }

    /// Returns a line on which this has been sent.
    fn with(bytes: &[u8]) -> Answers<Sent> {
        let mut answers = Answers::new(Sent(Vec::new()));
        for byte in bytes {
            let Ok(()) = answers.write(*byte);
        }
        answers.line.0.clear();
        answers
    }

    #[test]
    fn the_last_packet_is_sent_again_until_it_has_come() {
        let mut answers = with(b"+$O41#c4$OK#9a+");
        answers.acknowledged();
        answers.refused();
        answers.refused();
        assert_eq!(answers.line.0.as_slice(), b"$OK#9a$OK#9a");
        answers.acknowledged();
        answers.refused();
        assert_eq!(answers.line.0.len(), 12, "gdb has got all");
    }

    #[test]
    fn a_packet_before_the_last_is_not_sent_again() {
        let mut answers = with(b"$O41#c4$OK#9a");
        answers.refused();
        answers.acknowledged();
        assert_eq!(answers.line.0.as_slice(), b"");
        let mut answers = with(b"$OK#9a");
        answers.asked();
        answers.refused();
        assert_eq!(answers.line.0.as_slice(), b"", "gdb asks only after it has got the answer");
    }

    #[test]
    fn an_error_stands_for_a_packet_that_is_too_long_to_be_kept() {
        let mut answers = with(&[b"$".as_slice(), &[b'0'; LONGEST], b"#00"].concat());
        assert_eq!(answers.last.len(), LONGEST);
        answers.refused();
        assert_eq!(answers.line.0.as_slice(), LOST);
    }

    #[test]
    fn what_is_muted_is_neither_sent_nor_kept() {
        let mut answers = with(b"$OK#9a");
        answers.is_muted = true;
        let Ok(()) = answers.write(b'$');
        answers.is_muted = false;
        answers.refused();
        assert_eq!(answers.line.0.as_slice(), b"$OK#9a");
    }
}
