//! The user's terminal as the guest's: raw while a machine runs, and put back in every case.

use std::io::{IsTerminal, stdin};
use std::panic;
use std::sync::OnceLock;

use anyhow::{Context, Result};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};

static COOKED: OnceLock<Termios> = OnceLock::new();

/// A raw terminal. Dropping it puts the terminal back.
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
        // A panic aborts, so it runs no destructors.
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
