//! A Debian in its machine, while the tests are run.

use anyhow::{Result, anyhow};

use super::debs::Debs;
use super::state::State;
use crate::console::{BOOT, Console};
use crate::distribution;
use crate::machine::RunningMachine;
use crate::test::menu::MENU;

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
    /// Reboots into what the menu starts by itself, and logs in.
    pub fn reboot(&mut self) -> Result<()> {
        self.console.type_line("systemctl reboot")?;
        self.console.expect(MENU, BOOT)?;
        distribution::log_in(&mut self.console)
    }

    /// Returns what was collected bare and under Vidar.
    pub fn both(&self) -> Result<(&State, &State)> {
        self.bare.as_ref().zip(self.vidar.as_ref()).ok_or_else(|| anyhow!("nothing was collected"))
    }
}
