//! Linux under Vidar on a KVM that nests: what a newcomer's first run takes where KVM can do that.

use std::num::NonZeroU32;
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use super::lane::Lane;
use super::report::Report;
use super::{Tools, linux, smp, test_dir, vidarctl};
use crate::console::{ANSWER, BOOT, Console, PROMPT};
use crate::grub::Menu;
use crate::iso::{self, Recipe};
use crate::machine::{Running, Spec};
use crate::manifest;

const LANE: Lane = Lane::SvmKvm;

/// A machine and what is done in it.
#[derive(Debug)]
pub struct Machine {
    cpus: u32,
    steps: &'static [(&'static str, Step)],
}

type Step = fn(&mut Guest) -> Result<()>;

/// All of them. A boot takes minutes here, so each ends in another way.
pub const MACHINES: [Machine; 2] = [
    Machine { cpus: 2, steps: &[("boot", boot), ("hotplug", hotplug), ("reboot", reboot)] },
    Machine { cpus: 1, steps: &[("boot", boot), ("vidarctl", vidarctl), ("poweroff", power_off)] },
];

/// How often the second CPU is taken off and put back.
const ROUNDS: u32 = 10;

/// Linux counts ticks of the old timer while the TSC runs, to see whether their interrupts come, and panics if they do not.
/// The timer is that of a KVM whose own time is emulated, so on a busy host they come too late. Linux knows that of KVM and
/// leaves the check out where it sees one; it does not see this one, since Vidar hides its leaves of CPUID.
const NO_TIMER_CHECK: &str = " no_timer_check";

struct Guest {
    cpus: u32,
    running: Running,
    console: Console,
}

impl Machine {
    /// The names of the tests, in their order.
    pub fn names(&self) -> Vec<String> {
        self.steps.iter().map(|(step, _)| self.name(step)).collect()
    }

    fn name(&self, what: &str) -> String {
        LANE.test(&format!("linux/{}-cpu/{what}", self.cpus))
    }

    /// Takes the steps; after one that failed there are no more.
    pub fn run(&self, tools: &Tools, report: &Report) -> Result<()> {
        let dir = test_dir(&LANE.folder(&format!("linux-{}-cpu", self.cpus)))?;
        let log = dir.join("serial.log");
        let mut begun = Instant::now();
        let mut guest = manifest::load()?.into_iter().next().context("the manifest names no guest")?;
        guest.cmdline += NO_TIMER_CHECK;
        let menu = Menu { default: Some(guest.name.clone()), timeout: 0, ..Menu::default() };
        let hypervisor = Some(tools.hypervisor.clone());
        let recipe = Recipe { guests: vec![guest], menu, hypervisor, vidarctl: Some(tools.vidarctl.clone()) };
        let iso = dir.join("vidar.iso");
        iso::make(&recipe, &iso)?;
        let cpus = NonZeroU32::new(self.cpus);
        let running = LANE.machine().start(&Spec { dir, iso, memory: 512, cpus, ..Spec::default() })?;
        let console = Console::new(running.serial()?, &log)?;
        let mut guest = Guest { cpus: self.cpus, running, console };
        let mut failed = false;
        for (name, step) in self.steps {
            let result = if failed { Err(anyhow::anyhow!("not reached")) } else { step(&mut guest) };
            failed |= result.is_err();
            report.result(&self.name(name), begun, result, Some(&log));
            begun = Instant::now();
        }
        Ok(())
    }
}

fn boot(guest: &mut Guest) -> Result<()> {
    guest.console.expect("Linux version", BOOT)?;
    guest.console.expect(PROMPT, BOOT)?;
    let cpus = guest.console.run("nproc")?;
    ensure!(cpus.trim() == guest.cpus.to_string(), "nproc says {cpus:?}");
    Ok(())
}

fn vidarctl(guest: &mut Guest) -> Result<()> {
    vidarctl::check(&mut guest.console, LANE.extension())
}

fn hotplug(guest: &mut Guest) -> Result<()> {
    smp::off_and_on(&mut guest.console, guest.cpus, ROUNDS)
}

/// The machine is reset, and comes back to Vidar by the menu.
fn reboot(guest: &mut Guest) -> Result<()> {
    guest.console.type_line("reboot")?;
    guest.console.expect("Restarting system", ANSWER)?;
    guest.console.expect("vidar: ", BOOT)?;
    Ok(())
}

fn power_off(guest: &mut Guest) -> Result<()> {
    linux::power_off(&mut guest.running, &mut guest.console)
}
