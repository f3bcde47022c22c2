//! The probe on two CPUs, with a line for gdb.

use anyhow::Result;

use crate::console::{ANSWER, BOOT};
use crate::grub::Menu;
use crate::machine::gdb::Relay;
use crate::test::Tools;
use crate::test::lane::Lane;
use crate::test::small::{BootedGuest, Small};

/// The number of the machine's CPUs.
pub const CPUS: u32 = 2;

/// Boots the probe with this scenario, for the test `name`, and waits until it says `begins`. Returns the machine, the
/// line to gdb, and the rest of what the probe says there.
pub fn boot(
    name: &str,
    lane: Lane,
    scenario: &str,
    begins: &str,
    tools: &Tools,
) -> Result<(BootedGuest, Relay, String)> {
    let options = format!("gdb=com2 {}", lane.machine().option_for_cpus());
    let mut booted = Small {
        name: lane.folder(name),
        lane,
        kernel: tools.probe()?.to_vec(),
        cmdline: format!("probe={scenario}"),
        menu: Menu { options, ..Menu::default() },
        memory: 256,
        cpus: CPUS,
        cpu: lane.cpu(),
        second_serial: true,
        ..Small::default()
    }
    .boot(tools)?;
    let relay = Relay::open(booted.running.second_serial()?, 0)?;
    booted.console.expect(begins, BOOT)?;
    let said = booted.console.expect("\r\n", ANSWER)?;
    Ok((booted, relay, said))
}
