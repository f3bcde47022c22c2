//! Uses ACPI, bare and under Vidar: the sleep states, suspending to idle, and the power button. Also resets the machine
//! in each way that Linux knows, which must lead back to GRUB.

pub mod guarded;

use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::console::{ANSWER, BOOT, Console, PROMPT, TALK};
use crate::machine::abilities::Ability;
use crate::machine::monitor::Monitor;
use crate::machine::{Chipset, RunningMachine, Spec};
use crate::modules;
use crate::test::lane::Lane;
use crate::test::menu::MENU;
use crate::test::report::Report;
use crate::test::{LinuxMachine, Tools, test_dir};

/// The modules for the power button's driver and for its events.
const MODULES: &[&str] = &["button", "evdev"];

/// The time for which the machine is left asleep. It does not wake up by itself.
const ASLEEP: Duration = Duration::from_secs(2);

type Step = fn(&mut Machine) -> Result<()>;

/// The steps in their order: the last part of each test's name, and the function that does it.
const STEPS: [(&str, Step); 4] = [
    ("boot", boot),
    ("states", states),
    ("suspend-to-idle", suspend_to_idle),
    ("power-button", power_button),
];

struct Machine {
    under_vidar: bool,
    running: RunningMachine,
    console: Console,
    monitor: Monitor,
}

/// Returns the names of the tests that [`all`] runs.
pub fn names(lane: Lane, under_vidar: bool) -> Vec<String> {
    STEPS.iter().map(|(step, _)| lane.test(&format!("power/{}/{step}", side(under_vidar)))).collect()
}

fn side(under_vidar: bool) -> &'static str {
    if under_vidar { "vidar" } else { "bare" }
}

/// Takes the steps, up to the first that fails.
pub fn all(lane: Lane, under_vidar: bool, tools: &Tools, report: &Report) -> Result<()> {
    let begun = Instant::now();
    let dir = test_dir(&lane.folder(&format!("power-{}", side(under_vidar))))?;
    let mut machine = machine(lane, true, dir.clone())?;
    let modules = modules::archive(machine.guest(), MODULES)?;
    machine.add_initrd(modules);
    machine.bare_unless(under_vidar);
    let (mut running, console) = machine.start(tools)?;
    let mut machine = Machine { under_vidar, monitor: running.monitor()?, running, console };
    let log = dir.join("serial.log");
    let steps = names(lane, under_vidar).into_iter().zip(STEPS.map(|(_, step)| step));
    report.steps(&mut machine, steps, begun, Some(&log));
    Ok(())
}

/// Returns the machine of a test.
fn machine(lane: Lane, uefi: bool, dir: PathBuf) -> Result<LinuxMachine> {
    let mut machine = LinuxMachine::new(lane, dir)?;
    machine.spec = Spec { chipset: Chipset::Q35, uefi, fixed_clock: true, ..machine.spec };
    Ok(machine)
}

fn boot(machine: &mut Machine) -> Result<()> {
    machine.console.expect("Linux version", BOOT)?;
    machine.console.expect(PROMPT, BOOT)?;
    machine.console.run(&modules::insert())?;
    Ok(())
}

/// Vidar hides the firmware's suspend to RAM, and keeps hibernation.
fn states(machine: &mut Machine) -> Result<()> {
    let kinds = machine.console.run("cat /sys/power/mem_sleep")?;
    if machine.under_vidar {
        ensure!(kinds == "[s2idle]\n", "the kinds of suspend are {kinds:?}");
    } else {
        ensure!(
            kinds.contains("deep"),
            "the bare machine has no suspend to RAM that could be hidden: {kinds:?}"
        );
    }
    let supported = machine.console.run("dmesg | grep 'ACPI: PM: (supports'")?;
    let wanted = if machine.under_vidar { "(supports S0 S4 S5)" } else { "(supports S0 S3 S4 S5)" };
    ensure!(supported.contains(wanted), "Linux says {supported:?}");
    Ok(())
}

/// The power button wakes the machine up from suspend to idle.
fn suspend_to_idle(machine: &mut Machine) -> Result<()> {
    machine.console.type_line(&format!("{TALK}; echo freeze >/sys/power/state; echo aw''ake"))?;
    machine.console.expect("Suspending console(s)", ANSWER)?;
    thread::sleep(ASLEEP);
    machine.monitor.power_button()?;
    machine.console.expect("awake\r\n", ANSWER)?;
    machine.console.expect(PROMPT, ANSWER)?;
    Ok(())
}

/// The power button reaches a program, which powers the machine off.
fn power_button(machine: &mut Machine) -> Result<()> {
    const ACTION: &str = "/etc/acpi/PWRF/00000080";
    let console = &mut machine.console;
    console.run("mkdir -p /etc/acpi/PWRF")?;
    console.run(&format!("printf '#!/bin/sh\\npoweroff\\n' >{ACTION}; chmod +x {ACTION}"))?;
    console.run("acpid -d >/acpid.log 2>&1 & true")?;
    console.run("until ls -l /proc/$(pidof acpid)/fd | grep -q input; do sleep 1; done")?;
    machine.monitor.power_button()?;
    console.expect("Power down", ANSWER)?;
    ensure!(machine.running.ended(ANSWER)? == Some(true), "the machine is still on");
    Ok(())
}

/// A way in which Linux can reset a machine.
#[derive(Debug, Clone, Copy)]
pub struct Reset {
    /// The letter that `reboot=` takes for it.
    letter: &'static str,
    /// Linux' name for it.
    way: &'static str,
}

/// All ways that Linux offers.
pub const RESETS: [Reset; 6] = [
    Reset { letter: "a", way: "acpi" },
    Reset { letter: "k", way: "kbd" },
    Reset { letter: "p", way: "pci" },
    Reset { letter: "t", way: "triple" },
    Reset { letter: "e", way: "efi" },
    Reset { letter: "b", way: "bios" },
];

impl Reset {
    /// Returns the test's name, in its lane.
    pub fn name(self) -> String {
        format!("power/reset/{}", self.way)
    }

    /// What the emulator must be able to do.
    pub fn needs(self) -> Vec<Ability> {
        // Linux goes back to real mode for this.
        if self.way == "bios" { vec![Ability::QemuNestedRealMode] } else { vec![] }
    }

    /// Boots Linux from the menu, and resets the machine back to the menu.
    pub fn run(self, lane: Lane, tools: &Tools) -> Result<()> {
        let dir = test_dir(&lane.folder(&self.name()))?;
        let mut machine = machine(lane, self.way == "efi", dir)?;
        let cmdline = &mut machine.guest().cmdline;
        *cmdline = format!("{cmdline} reboot={}", self.letter);
        // Without a second to wait, GRUB would not show its menu.
        machine.menu.timeout = 1;
        let (_running, mut console) = machine.boot(tools)?;
        let chosen = console.run("cat /sys/kernel/reboot/type")?;
        ensure!(chosen.trim() == self.way, "Linux would reset by {chosen:?}");
        console.type_line("reboot")?;
        if self.way == "triple" {
            console.expect("the guest has stopped on CPU 0: triple fault", ANSWER)?;
        }
        console.expect(MENU, ANSWER)?;
        Ok(())
    }
}
