//! Boots a whole Debian, bare and under Vidar, with its own kernel and initrd, systemd, and a root file system on a disk.

use std::fs;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use super::facts::hidden;
use super::lane::Lane;
use super::report::Report;
use super::transparency::messages;
use super::{Tools, test_dir};
use crate::console::{ANSWER, BOOT, Console};
use crate::distribution::{self, Distribution};
use crate::grub::{self, Menu};
use crate::iso::{self, Recipe};
use crate::machine::disk::{Bus, Disk, Format};
use crate::machine::{Network, RunningMachine, Spec};

/// The prompt of root's shell.
const SHELL: &str = "root@vidar-debian:~# ";

/// A message of Linux about a timer interrupt that came late. In a slow machine that systemd keeps busy, in another
/// order each time, this says nothing about Vidar.
const LATE: &str = "clocksource: Long readout interval";

/// What is compared of a Debian system.
struct Status {
    /// The state of systemd: running, or degraded.
    state: String,
    /// The units that have failed.
    failed: String,
    /// The kernel's messages with their levels.
    messages: String,
}

/// The names of the tests.
pub fn names(lane: Lane) -> Vec<String> {
    let steps = ["bare/login", "vidar/login", "vidar/units", "vidar/messages"];
    steps.map(|step| lane.test(&format!("distribution/{step}"))).into()
}

/// Boots the Debian system bare and under Vidar, and compares.
pub fn all(lane: Lane, tools: &Tools, report: &Report) -> Result<()> {
    let distribution = distribution::get(&tools.vidarctl)?;
    let names = names(lane);
    let mut names = names.iter();
    let mut step = |begun, result, log: Option<&Path>| {
        report.result(names.next().map_or("", String::as_str), begun, result, log);
    };
    let mut both = Vec::new();
    for under_vidar in [false, true] {
        let begun = Instant::now();
        let dir =
            test_dir(&lane.folder(if under_vidar { "distribution-vidar" } else { "distribution-bare" }))?;
        let said = boot(lane, under_vidar, &distribution, tools, &dir);
        let (said, result) = said.map_or_else(|error| (None, Err(error)), |said| (Some(said), Ok(())));
        step(begun, result, Some(&dir.join("serial.log")));
        both.push(said);
    }
    let begun = Instant::now();
    let [Some(bare), Some(vidar)] = &both[..] else {
        for _ in 0..2 {
            step(begun, Err(anyhow::anyhow!("not reached")), None);
        }
        return Ok(());
    };
    step(begun, units(bare, vidar), None);
    step(begun, messages(&bare.messages, &vidar.messages), None);
    Ok(())
}

fn units(bare: &Status, vidar: &Status) -> Result<()> {
    let Status { state, failed, .. } = vidar;
    ensure!(
        !state.is_empty() && *state == bare.state,
        "systemd is {state} under Vidar, and {} on the bare machine",
        bare.state
    );
    ensure!(
        *failed == bare.failed,
        "the units that failed under Vidar are {failed}, and on the bare machine {}",
        bare.failed
    );
    Ok(())
}

/// Boots from the menu to the login prompt, logs in, and powers off.
fn boot(
    lane: Lane,
    under_vidar: bool,
    distribution: &Distribution,
    tools: &Tools,
    dir: &Path,
) -> Result<Status> {
    let guest = distribution.guest.clone();
    let default = if under_vidar { guest.name.clone() } else { grub::bare(&guest.name) };
    let recipe = Recipe {
        guests: vec![guest],
        menu: Menu { default: Some(default), timeout: 0, ..Menu::default() },
        hypervisor: Some(tools.hypervisor.clone()),
        vidarctl: None,
    };
    let (iso, path) = (dir.join("vidar.iso"), dir.join("disk"));
    iso::make(&recipe, &iso)?;
    fs::copy(&distribution.disk, &path).context("cannot copy the Debian's disk")?;
    let spec = Spec {
        dir: dir.to_path_buf(),
        iso,
        memory: 1024,
        disks: vec![Disk { path: path.clone(), format: Format::Raw, bus: Bus::Virtio }],
        networks: vec![Network::Virtio],
        counts_instructions: true,
        verbose: true,
        ..Spec::default()
    };
    let mut running = lane.machine().start(&spec)?;
    let mut console = Console::new(running.serial()?, &dir.join("serial.log"))?;
    let said = log_in(&mut console, under_vidar)?;
    power_off(&mut running, &mut console)?;
    fs::remove_file(path)?;
    Ok(said)
}

fn log_in(console: &mut Console, under_vidar: bool) -> Result<Status> {
    console.expect("login: ", BOOT)?;
    console.type_line("root")?;
    console.expect(SHELL, BOOT)?;
    // This gives the shell the prompt of the built-in guest's shell, which the console expects.
    console.type_line("bind 'set enable-bracketed-paste off'; PS1='guest''# '")?;
    console.expect("guest# ", ANSWER)?;
    let status = console.run("vidarctl status --json || true")?;
    ensure!(hidden(&status).is_ok() == under_vidar, "vidarctl says: {status}");
    let state = console.run("systemctl is-system-running --wait || true")?;
    let failed = console.run("systemctl --failed --plain --no-legend --no-pager")?;
    let messages = console.run(&format!("dmesg -r | grep -v '{LATE}'"))?;
    Ok(Status { state, failed, messages })
}

fn power_off(running: &mut RunningMachine, console: &mut Console) -> Result<()> {
    console.type_line("systemctl poweroff")?;
    console.expect("Power down", BOOT)?;
    ensure!(running.ended(ANSWER)? == Some(true), "the machine is still on");
    Ok(())
}
