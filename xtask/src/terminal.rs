//! Makes the user's terminal raw while a machine runs, and restores it in every case.

use std::io::{IsTerminal, stdin};
use std::panic;
use std::sync::OnceLock;

use anyhow::{Context, Result};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};

/// The settings that the terminal had before.
static COOKED: OnceLock<Termios> = OnceLock::new();

/// A guard for a raw terminal. Dropping it restores the terminal.
#[derive(Debug)]
pub struct Raw;

impl Raw {
    /// Makes the terminal raw, if standard input is one.
    pub fn enter() -> Result<Self> {
        if !stdin().is_terminal() {
            return Ok(Self);
        }
        let cooked = tcgetattr(stdin()).context("cannot read the terminal's settings")?;
        let mut raw = cooked.clone();
        raw.make_raw();
        let _ = COOKED.set(cooked);
        // A panic aborts without running destructors, so its hook restores the terminal.
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            restore();
            usual(info);
        }));
        tcsetattr(stdin(), OptionalActions::Now, &raw).context("cannot make the terminal raw")?;
        Ok(Self)
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        restore();
    }
}

fn restore() {
    if let Some(cooked) = COOKED.get() {
        let _ = tcsetattr(stdin(), OptionalActions::Drain, cooked);
    }
}
