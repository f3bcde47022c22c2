//! Boots Linux under Vidar on a nested KVM. `cargo xtask run` prefers a KVM that nests, so this is what many users try
//! first.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::facts::Facts;
use super::lane::Lane;
use super::report::Report;
use super::transparency::{COMPARISONS, Comparison};
use super::{LinuxMachine, Tools, linux, smp, test_dir, vidarctl};
use crate::console::{ANSWER, Console, PROMPT};
use crate::machine::{RunningMachine, Spec};

/// A machine, and the steps that are taken in it.
#[derive(Debug)]
pub struct Machine {
    lane: Lane,
    cpus: u32,
    /// True if Linux runs without Vidar, for a comparison.
    bare: bool,
    /// The machine's CPU, if it is not the one of `cargo xtask run`.
    cpu: Option<&'static str>,
    steps: &'static [(&'static str, Step)],
}

type Step = fn(&mut Guest) -> Result<()>;

/// The table of machines. A boot takes minutes here, so each machine ends in another way. On VT-x, KVM offers the
/// wait-for-SIPI state, so the hardware starts the second CPU.
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

/// A CPU that does not name KVM in CPUID. Otherwise, a bare Linux would use KVM's clock and other features that Vidar
/// hides.
const WITHOUT_KVM_LEAVES: &str = "host,migratable=off,+svm,kvm=off";

/// Returns the machines of a lane.
pub fn machines(lane: Lane) -> impl Iterator<Item = &'static Machine> {
    MACHINES.iter().filter(move |machine| machine.lane == lane)
}

/// The facts that were collected, with true as the key for a bare machine and false for one under Vidar.
#[derive(Debug, Default)]
pub struct FactStore(Mutex<HashMap<bool, Facts>>);

/// The comparisons that are left out. The clock source and the kernel's messages depend on how late the clocks of a KVM
/// in an emulator are.
const BY_TIME: [&str; 2] = ["clocksource", "messages"];

fn comparisons() -> impl Iterator<Item = &'static Comparison> {
    COMPARISONS.iter().filter(|comparison| !BY_TIME.contains(&comparison.name))
}

/// Returns the names of the comparisons.
pub fn comparison_names() -> Vec<String> {
    let names = comparisons().map(|comparison| format!("transparency/{}", comparison.name));
    names.map(|name| Lane::SvmKvm.test(&name)).collect()
}

/// Returns true if the test of this name collects facts to compare.
pub fn makes_facts(name: &str) -> bool {
    name.starts_with(&Lane::SvmKvm.test("linux/")) && name.ends_with("/facts")
}

/// Compares the facts of the two machines.
pub fn compare(found: &FactStore, report: &Report) {
    let found = found.0.lock().expect("no thread panics while it holds the lock");
    let of = |bare| found.get(&bare).context("the guest's facts were not collected");
    for (comparison, name) in comparisons().zip(comparison_names()) {
        let begun = Instant::now();
        let result = of(true).and_then(|bare| (comparison.compare)(bare, of(false)?));
        report.result(&name, begun, result, None);
    }
}

/// Makes Linux skip its check of the PIT's interrupts, in which it waits for some of them and panics if they do not
/// come in time. Here the PIT is that of a KVM whose own clock is emulated, so on a busy host they come too late. On
/// KVM Linux skips the check by itself, but Vidar hides the CPUID leaves by which Linux would recognise KVM.
const NO_TIMER_CHECK: &str = " no_timer_check";
/// Makes Linux print less. Each byte of a message takes exits of two hypervisors, which are slow in Bochs.
const QUIET: &str = " quiet";
/// Gives Linux a frequency of the TSC. Otherwise Linux measures it, which may fail on a busy host, and then Linux shows
/// fewer CPU features.
const KNOWN_TSC: &str = " tsc=reliable tsc_early_khz=2500000";

/// The time that Linux has to boot in a nested KVM.
const NESTED_BOOT: Duration = Duration::from_secs(3600);

/// How often the second CPU is taken offline and back online.
const ROUNDS: u32 = 10;

struct Guest {
    lane: Lane,
    cpus: u32,
    bare: bool,
    running: RunningMachine,
    console: Console,
    facts: Option<Facts>,
}

impl Machine {
    /// Returns the names of the tests, in their order.
    pub fn names(&self) -> Vec<String> {
        self.steps.iter().map(|(step, _)| self.name(step)).collect()
    }

    fn name(&self, what: &str) -> String {
        self.lane.test(&format!("linux/{}/{what}", self.folder()))
    }

    fn folder(&self) -> String {
        format!("{}{}-cpu", if self.bare { "bare/" } else { "" }, self.cpus)
    }

    /// Takes the steps, up to the first that fails.
    pub fn run(&self, tools: &Tools, found: &FactStore, report: &Report) -> Result<()> {
        let dir = test_dir(&self.lane.folder(&format!("linux/{}", self.folder())))?;
        let log = dir.join("serial.log");
        let begun = Instant::now();
        let mut machine = LinuxMachine::new(self.lane, dir)?;
        let guest = machine.guest();
        guest.cmdline += NO_TIMER_CHECK;
        guest.cmdline += if self.lane == Lane::VmxKvm { QUIET } else { KNOWN_TSC };
        guest.cmdline += &self.lane.command_line();
        machine.bare_unless(!self.bare);
        let (cpus, cpu) = (NonZeroU32::new(self.cpus), self.cpu.map(str::to_owned));
        machine.spec = Spec { cpus, cpu, verbose: false, ..machine.spec };
        let (running, console) = machine.start(tools)?;
        let Machine { lane, cpus, bare, .. } = *self;
        let mut guest = Guest { lane, cpus, bare, running, console, facts: None };
        let steps = self.steps.iter().map(|(name, step)| (self.name(name), *step));
        report.steps(&mut guest, steps, begun, Some(&log));
        if let Some(facts) = guest.facts {
            found.0.lock().expect("no thread panics while it holds the lock").insert(self.bare, facts);
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

/// The local APICs start the CPUs, and not Vidar.
fn started_by_hardware(guest: &mut Guest) -> Result<()> {
    let log = guest.console.run("vidarctl log")?;
    ensure!(!log.contains("started by Vidar"), "Vidar starts the CPUs: {log}");
    Ok(())
}

/// Linux resets the machine, which then boots Vidar again.
fn reboot(guest: &mut Guest) -> Result<()> {
    guest.console.type_line("reboot")?;
    guest.console.expect("Restarting system", ANSWER)?;
    guest.console.expect("vidar: ", NESTED_BOOT)?;
    Ok(())
}

fn power_off(guest: &mut Guest) -> Result<()> {
    linux::power_off(&mut guest.running, &mut guest.console)
}
