//! A Debian in its machine, while the tests are run.

use anyhow::{Result, anyhow};

use super::debs::Debs;
use super::state::State;
use crate::console::Console;
use crate::machine::RunningMachine;

/// A Debian in its machine.
pub struct Guest {
    /// The machine.
    pub running: RunningMachine,
    /// The machine's serial console.
    pub console: Console,
    /// The packages that are installed.
    pub debs: Debs,
    /// What was collected on the bare machine.
    pub bare: Option<State>,
    /// What was collected under Vidar.
    pub vidar: Option<State>,
}

impl Guest {
    /// Returns what was collected bare and under Vidar.
    pub fn both(&self) -> Result<(&State, &State)> {
        self.bare.as_ref().zip(self.vidar.as_ref()).ok_or_else(|| anyhow!("nothing was collected"))
    }
}
