//! Linux under Vidar on a KVM that nests: what a newcomer's first run takes where KVM can do that.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::facts::Facts;
use super::lane::Lane;
use super::report::Report;
use super::transparency::{COMPARISONS, Comparison};
use super::{Tools, linux, smp, test_dir, vidarctl};
use crate::console::{ANSWER, Console, PROMPT};
use crate::grub::{self, Menu};
use crate::iso::{self, Recipe};
use crate::machine::{Running, Spec};
use crate::manifest;

/// A machine and what is done in it.
#[derive(Debug)]
pub struct Machine {
    lane: Lane,
    cpus: u32,
    /// Whether Linux runs there without Vidar, to compare with.
    bare: bool,
    /// The machine's CPU, if it is not that which `cargo xtask run` takes.
    cpu: Option<&'static str>,
    steps: &'static [(&'static str, Step)],
}

type Step = fn(&mut Guest) -> Result<()>;

/// All of them. A boot takes minutes here, so each ends in another way. On VT-x KVM offers wait-for-SIPI, so hardware starts
/// the second CPU.
const MACHINES: [Machine; 5] = [
    Machine {
        lane: Lane::VmxKvm,
        cpus: 2,
        bare: false,
        cpu: None,
        steps: &[("boot", boot), ("started-by-hardware", started_by_hardware)],
    },
    Machine {
        lane: Lane::VmxKvm,
        cpus: 1,
        bare: false,
        cpu: None,
        steps: &[("boot", boot), ("vidarctl", vidarctl), ("poweroff", power_off)],
    },
    Machine {
        lane: Lane::SvmKvm,
        cpus: 2,
        bare: false,
        cpu: None,
        steps: &[("boot", boot), ("hotplug", hotplug), ("reboot", reboot)],
    },
    Machine {
        lane: Lane::SvmKvm,
        cpus: 1,
        bare: false,
        cpu: Some(WITHOUT_KVM_LEAVES),
        steps: &[("boot", boot), ("vidarctl", vidarctl), ("facts", facts), ("poweroff", power_off)],
    },
    Machine {
        lane: Lane::SvmKvm,
        cpus: 1,
        bare: true,
        cpu: Some(WITHOUT_KVM_LEAVES),
        steps: &[("boot", boot), ("facts", facts), ("poweroff", power_off)],
    },
];

/// A CPU that does not name KVM. Bare, Linux would use KVM's clock and more of what Vidar hides.
const WITHOUT_KVM_LEAVES: &str = "host,migratable=off,+svm,kvm=off";

/// Those of a lane.
pub fn machines(lane: Lane) -> impl Iterator<Item = &'static Machine> {
    MACHINES.iter().filter(move |machine| machine.lane == lane)
}

/// What Linux has seen of the machine whose facts were collected, bare and under Vidar.
#[derive(Debug, Default)]
pub struct Found(Mutex<HashMap<bool, Facts>>);

/// What is not compared: the clock source and the kernel's messages tell how late the clocks of an emulated KVM are.
const BY_TIME: [&str; 2] = ["clocksource", "messages"];

fn comparisons() -> impl Iterator<Item = &'static Comparison> {
    COMPARISONS.iter().filter(|comparison| !BY_TIME.contains(&comparison.name))
}

/// The names of the comparisons of the two.
pub fn comparison_names() -> Vec<String> {
    let names = comparisons().map(|comparison| format!("transparency/{}", comparison.name));
    names.map(|name| Lane::SvmKvm.test(&name)).collect()
}

/// Returns true if the test of this name collects what is compared.
pub fn makes_facts(name: &str) -> bool {
    name.starts_with(&Lane::SvmKvm.test("linux/")) && name.ends_with("/facts")
}

/// Compares the two.
pub fn compare(found: &Found, report: &Report) {
    let found = found.0.lock().expect("nobody panics with it");
    let of = |bare| found.get(&bare).context("the guest's facts were not collected");
    for (comparison, name) in comparisons().zip(comparison_names()) {
        let begun = Instant::now();
        let result = of(true).and_then(|bare| (comparison.compare)(bare, of(false)?));
        report.result(&name, begun, result, None);
    }
}

/// Linux counts ticks of the old timer while the TSC runs, to see whether their interrupts come, and panics if they do not.
/// The timer is that of a KVM whose own time is emulated, so on a busy host they come too late. Linux knows that of KVM and
/// leaves the check out where it sees one; it does not see this one, since Vidar hides its leaves of CPUID.
const NO_TIMER_CHECK: &str = " no_timer_check";
/// Each byte of a message takes exits of two hypervisors, which Bochs is slow at.
const QUIET: &str = " quiet";
/// Some frequency for the TSC. Linux measures it otherwise, which fails on a busy host, and then shows fewer features of the CPU.
const KNOWN_TSC: &str = " tsc=reliable tsc_early_khz=2500000";

/// How long Linux may take in a nested KVM.
const NESTED_BOOT: Duration = Duration::from_secs(3600);

/// How often the second CPU is taken off and put back.
const ROUNDS: u32 = 10;

struct Guest {
    lane: Lane,
    cpus: u32,
    bare: bool,
    running: Running,
    console: Console,
    facts: Option<Facts>,
}

impl Machine {
    /// The names of the tests, in their order.
    pub fn names(&self) -> Vec<String> {
        self.steps.iter().map(|(step, _)| self.name(step)).collect()
    }

    fn name(&self, what: &str) -> String {
        self.lane.test(&format!("linux/{}/{what}", self.folder()))
    }

    fn folder(&self) -> String {
        format!("{}{}-cpu", if self.bare { "bare/" } else { "" }, self.cpus)
    }

    /// Takes the steps; after one that failed there are no more.
    pub fn run(&self, tools: &Tools, found: &Found, report: &Report) -> Result<()> {
        let dir = test_dir(&self.lane.folder(&format!("linux/{}", self.folder())))?;
        let log = dir.join("serial.log");
        let mut begun = Instant::now();
        let mut guest = manifest::load()?.into_iter().next().context("the manifest names no guest")?;
        guest.cmdline += NO_TIMER_CHECK;
        guest.cmdline += if self.lane == Lane::VmxKvm { QUIET } else { KNOWN_TSC };
        guest.cmdline += &self.lane.command_line();
        let default = if self.bare { grub::bare(&guest.name) } else { guest.name.clone() };
        let menu = Menu { default: Some(default), timeout: 0, ..Menu::default() };
        let hypervisor = Some(tools.hypervisor.clone());
        let recipe = Recipe { guests: vec![guest], menu, hypervisor, vidarctl: Some(tools.vidarctl.clone()) };
        let iso = dir.join("vidar.iso");
        iso::make(&recipe, &iso)?;
        let (cpus, cpu) = (NonZeroU32::new(self.cpus), self.cpu.map(str::to_owned));
        let running =
            self.lane.machine().start(&Spec { dir, iso, memory: 512, cpus, cpu, ..Spec::default() })?;
        let console = Console::new(running.serial()?, &log)?;
        let Machine { lane, cpus, bare, .. } = *self;
        let mut guest = Guest { lane, cpus, bare, running, console, facts: None };
        let mut failed = false;
        for (name, step) in self.steps {
            let result = if failed { Err(anyhow::anyhow!("not reached")) } else { step(&mut guest) };
            failed |= result.is_err();
            report.result(&self.name(name), begun, result, Some(&log));
            begun = Instant::now();
        }
        if let Some(facts) = guest.facts {
            found.0.lock().expect("nobody panics with it").insert(self.bare, facts);
        }
        Ok(())
    }
}

fn boot(guest: &mut Guest) -> Result<()> {
    if !guest.bare {
        guest.console.expect("vidar: the machine is the guest's now", NESTED_BOOT)?;
    }
    guest.console.expect(PROMPT, NESTED_BOOT)?;
    let cpus = guest.console.run("nproc")?;
    ensure!(cpus.trim() == guest.cpus.to_string(), "nproc says {cpus:?}");
    Ok(())
}

fn vidarctl(guest: &mut Guest) -> Result<()> {
    vidarctl::check(&mut guest.console, guest.lane.extension())
}

fn facts(guest: &mut Guest) -> Result<()> {
    guest.facts = Some(Facts::collect(&mut guest.console, !guest.bare)?);
    Ok(())
}

fn hotplug(guest: &mut Guest) -> Result<()> {
    smp::off_and_on(&mut guest.console, guest.cpus, ROUNDS)
}

/// Vidar leaves it to the local APICs to start the CPUs.
fn started_by_hardware(guest: &mut Guest) -> Result<()> {
    let log = guest.console.run("vidarctl log")?;
    ensure!(!log.contains("started by Vidar"), "Vidar starts the CPUs: {log}");
    Ok(())
}

/// The machine is reset, and comes back to Vidar by the menu.
fn reboot(guest: &mut Guest) -> Result<()> {
    guest.console.type_line("reboot")?;
    guest.console.expect("Restarting system", ANSWER)?;
    guest.console.expect("vidar: ", NESTED_BOOT)?;
    Ok(())
}

fn power_off(guest: &mut Guest) -> Result<()> {
    linux::power_off(&mut guest.running, &mut guest.console)
}
