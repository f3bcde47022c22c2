//! Tests that no known emulator can make. Each is named, and skipped with the reason, so that nobody takes it for made.

use anyhow::{Result, bail};

use super::lane::Lane;
use crate::machine::abilities::Ability;

/// A test that waits for an emulator.
#[derive(Debug)]
pub struct OutOfReach {
    name: &'static str,
    lane: Lane,
    /// What is in its way.
    pub obstacle: Ability,
}

/// All of them.
pub const TESTS: [OutOfReach; 1] = [OutOfReach {
    name: "linux/5-level-paging",
    lane: Lane::Vmx,
    obstacle: Ability::Nowhere(
        "Bochs 3.0 panics at the VM exit of a guest with 5-level paging (LA57), and the models of older ones have none",
    ),
}];

impl OutOfReach {
    /// Its name.
    pub fn name(&self) -> String {
        self.lane.test(self.name)
    }

    /// Fails: it has not been written, since nothing could run it.
    pub fn run(&self) -> Result<()> {
        bail!("{} has become possible and is to be written", self.name())
    }
}
