//! The terminal of a live view: it takes keys at once, and gets back what it showed before.

use std::io::{IsTerminal, Read, Write, stdin, stdout};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

/// The width of a terminal that does not know its own.
const COLUMNS: usize = 80;

/// The keys that end a view: q, Q, Ctrl-C and Ctrl-D.
const ENDS: [u8; 4] = [b'q', b'Q', 3, 4];

/// A terminal that shows a view. Dropping it restores what was there before.
pub struct Terminal {
    /// The settings before, if standard input is a terminal.
    before: Option<Termios>,
}

impl Terminal {
    /// Takes the terminal, if standard input is one. Without one a view goes on until a signal ends it.
    pub fn take() -> Self {
        let before = if stdin().is_terminal() { tcgetattr(stdin()).ok() } else { None };
        if let Some(before) = &before {
            let mut raw = before.clone();
            raw.make_raw();
            let _ = tcsetattr(stdin(), OptionalActions::Now, &raw);
            show("\x1b[?1049h\x1b[?25l\x1b[2J"); // the other screen, without a cursor
        }
        Self { before }
    }

    /// Returns the number of columns.
    pub fn columns(&self) -> usize {
        let size = tcgetwinsize(stdout()).map_or(0, |size| size.ws_col.into());
        if size == 0 { COLUMNS } else { size }
    }

    /// Waits for this time. Returns true at once if the user wants to end the view.
    pub fn wait(&self, time: Duration) -> bool {
        if self.before.is_none() {
            sleep(time);
            return false;
        }
        let end = Instant::now() + time;
        loop {
            let rest = end.saturating_duration_since(Instant::now());
            let timeout = Timespec { tv_sec: rest.as_secs() as i64, tv_nsec: rest.subsec_nanos().into() };
            let input = stdin();
            match poll(&mut [PollFd::new(&input, PollFlags::IN)], Some(&timeout)) {
                Ok(0) => return false,
                Ok(_) => {
                    let mut keys = [0; 16];
                    match input.lock().read(&mut keys) {
                        Ok(0) | Err(_) => return true, // the terminal is gone
                        Ok(count) if keys[..count].iter().any(|key| ENDS.contains(key)) => return true,
                        Ok(_) => {}
                    }
                }
                // A signal has ended the wait early.
                Err(_) => return false,
            }
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            show("\x1b[?25h\x1b[?1049l");
            let _ = tcsetattr(stdin(), OptionalActions::Drain, before);
        }
    }
}

/// Writes control codes. What becomes of them is seen when the view itself is written.
fn show(codes: &str) {
    let mut out = stdout().lock();
    let _ = out.write_all(codes.as_bytes()).and_then(|()| out.flush());
}
