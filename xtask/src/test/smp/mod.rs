//! Boots Linux on several CPUs, bare and under Vidar. Compares what it sees of them, takes CPUs offline and online,
//! sends NMIs to all, and runs a load that checks its own results, and a program that changes instructions while they
//! are executed.

mod setups;

use std::collections::HashMap;
use std::fs::File;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use self::setups::USUAL;
pub use self::setups::{Setup, setups};
use super::facts::Facts;
use super::lane::Lane;
use super::report::Report;
use super::transparency::{COMPARISONS, messages};
use super::{LinuxMachine, Tools, linux, test_dir, vidarctl};
use crate::console::{BOOT, Console, PROMPT};
use crate::machine::disk::{Bus, Disk, Format};
use crate::machine::{Machine, RunningMachine, Spec};
use crate::manifest::{self, Initrd};
use crate::modules;

/// How often each CPU but the first is taken offline and back online.
const ROUNDS: u32 = 10;
/// Makes idle CPUs of Linux in Bochs execute HLT and not MWAIT. Bochs misses some writes that should end an MWAIT,
/// since its MONITOR invalidates the translation of the physical address as if it were a linear one (cpu/mwait.cc of
/// Bochs), and another CPU keeps writing by a translation that it already has. An idle CPU then sleeps until its next
/// timer, bare as under Vidar, and sometimes for so long that Linux reports a lockup.
const HALTED_WHEN_IDLE: &str = " idle=halt";
/// Makes Linux in QEMU skip its check of the PIT's interrupts. If these come too late, Linux routes them in another
/// way. With several CPUs QEMU's clock is the host's, so on a busy host they do come too late, bare as under Vidar.
const NO_TIMER_CHECK: &str = " no_timer_check";
/// The size of the disk in bytes.
const DISK: u64 = 64 << 20;

/// Messages of Linux that come and go when the emulator's host is busy, since with several CPUs QEMU's clock is the
/// host's.
const LATE_HOST: [&str; 10] = [
    "tsc: Unable to calibrate against PIT",
    "tsc: PIT calibration deviates from HPET",
    "APIC calibration not consistent with PM-Timer",
    "APIC delta adjusted to PM-Timer",
    "calibrate_delay_direct",
    "Probably due to long platform interrupts",
    "Long readout interval",
    "hpet: Lost",
    "hrtimer: interrupt took",
    "perf: interrupt took too long",
];

/// The step that is taken only in the usual machine of AMD-V, where Vidar reads the instructions that exit.
const MUTATE: &str = "mutate";
/// The time for which that step's program runs.
const MUTATING: Duration = Duration::from_secs(30);

type Step = fn(&mut Guest) -> Result<()>;

/// The steps in their order: the last part of each test's name, and the function that does it.
const STEPS: [(&str, Step); 8] = [
    ("boot", boot),
    ("facts", facts),
    ("exits", exits),
    ("hotplug", hotplug),
    ("stress", stress),
    (MUTATE, mutate),
    ("nmi", nmi),
    ("poweroff", power_off),
];

/// For each setup, bare and under Vidar, the guest's facts after boot, and its messages after the load.
#[derive(Debug, Default)]
pub struct FactStore(Mutex<HashMap<(Setup, bool), (Facts, String)>>);

struct Guest {
    setup: Setup,
    under_vidar: bool,
    running: RunningMachine,
    console: Console,
    load: Duration,
    facts: Facts,
    /// The kernel's messages after the load.
    late: String,
}

impl Setup {
    /// Returns the names of the tests of one side, in their order.
    pub fn names(self, under_vidar: bool) -> Vec<String> {
        let side = if under_vidar { "vidar" } else { "bare" };
        self.steps(under_vidar).map(|(step, _)| self.name(&format!("{side}/{step}"))).collect()
    }

    /// Returns the steps of a side.
    fn steps(self, under_vidar: bool) -> impl Iterator<Item = (&'static str, Step)> {
        let made = move |name: &str| match name {
            "exits" => under_vidar,
            MUTATE => self == USUAL,
            "stress" | "nmi" => !self.is_started_by_hardware(),
            _ => true,
        };
        STEPS.into_iter().filter(move |(name, _)| made(name))
    }

    /// Returns the names of the comparisons of the two sides.
    pub fn comparison_names(self) -> Vec<String> {
        // The late messages are those after the load, which is not run where the hardware starts the CPUs.
        let late = (!self.is_started_by_hardware()).then_some("late-messages");
        let names = COMPARISONS.iter().map(|comparison| comparison.name).chain(late);
        names.map(|name| self.name(&format!("transparency/{name}"))).collect()
    }

    /// Takes the steps, up to the first that fails. The guest is under load for the time `load`.
    pub fn run(
        self,
        under_vidar: bool,
        load: Duration,
        tools: &Tools,
        found: &FactStore,
        report: &Report,
    ) -> Result<()> {
        let begun = Instant::now();
        let (mut guest, log) = start(self, under_vidar, load, tools)?;
        let steps = self.names(under_vidar).into_iter().zip(self.steps(under_vidar).map(|(_, step)| step));
        if report.steps(&mut guest, steps, begun, Some(&log)) {
            let all = &mut found.0.lock().expect("no thread panics while it holds the lock");
            all.insert((self, under_vidar), (guest.facts, guest.late));
        }
        Ok(())
    }

    /// Compares the two sides.
    pub fn compare(self, found: &FactStore, report: &Report) {
        let found = found.0.lock().expect("no thread panics while it holds the lock");
        let of = |side| found.get(&(self, side)).context("the guest's facts were not collected");
        let late = |_: &Facts, _: &Facts| messages(&in_time(&of(false)?.1), &in_time(&of(true)?.1));
        let first = COMPARISONS.iter().map(|one| &one.compare as &dyn Fn(&Facts, &Facts) -> Result<()>);
        for (compare, name) in first.chain([&late as _]).zip(self.comparison_names()) {
            let begun = Instant::now();
            let result = of(false).and_then(|(bare, _)| compare(bare, &of(true)?.0));
            report.result(&name, begun, result, None);
        }
    }
}

/// Returns the messages without those of a busy host.
pub fn in_time(messages: &str) -> String {
    let kept = messages.lines().filter(|line| LATE_HOST.iter().all(|late| !line.contains(late)));
    kept.map(|line| format!("{line}\n")).collect()
}

/// Returns what Linux' command line needs in a machine with several CPUs.
pub fn for_several_cpus(lane: Lane) -> &'static str {
    match lane.machine() {
        Machine::Bochs => HALTED_WHEN_IDLE,
        _ => NO_TIMER_CHECK,
    }
}

fn start(setup: Setup, under_vidar: bool, load: Duration, tools: &Tools) -> Result<(Guest, PathBuf)> {
    let side = if under_vidar { "vidar" } else { "bare" };
    let dir = test_dir(&setup.name(side).replace('/', "-"))?;
    let mut guest = manifest::load()?.into_iter().next().context("the manifest names no guest")?;
    if let Some(suite) = setup.suite {
        guest = guest.of_suite(suite).context("the manifest's first guest has no package")?;
    }
    let mut machine = LinuxMachine::with(setup.lane, dir.clone(), guest);
    machine.add_programs(&["stress", MUTATE])?;
    machine.bare_unless(under_vidar);
    setup.options.clone_into(&mut machine.menu.options);
    let guest = machine.guest();
    let mut disks = Vec::new();
    if setup.has_disk() {
        let modules = modules::archive(guest, &["virtio_pci", "virtio_blk", "efivarfs"])?;
        guest.initrds.push(Initrd::File(modules));
        let path = dir.join("disk");
        File::create(&path)?.set_len(DISK)?;
        disks.push(Disk { path, format: Format::Raw, bus: Bus::Virtio });
    }
    guest.cmdline += for_several_cpus(setup.lane);
    if !setup.is_started_by_hardware() {
        guest.cmdline += &setup.lane.command_line();
    }
    machine.spec = Spec {
        memory: setup.memory,
        cpus: NonZeroU32::new(setup.cpus),
        uefi: setup.uefi,
        remaps_interrupts: setup.x2apic,
        disks,
        fixed_clock: true,
        // When it counts instructions, QEMU 7.2 hangs as Linux starts the second CPU, bare as under Vidar.
        counts_instructions: false,
        ..machine.spec
    };
    let (running, console) = machine.start(tools)?;
    let log = dir.join("serial.log");
    let (facts, late) = Default::default();
    Ok((Guest { setup, under_vidar, running, console, load, facts, late }, log))
}

/// Waits for the shell, and checks that all CPUs are online.
fn boot(guest: &mut Guest) -> Result<()> {
    guest.console.expect("Linux version", BOOT)?;
    guest.console.expect(PROMPT, BOOT)?;
    if guest.setup.uefi {
        efi(&mut guest.console)?;
    }
    if guest.setup.x2apic {
        let said = guest.console.run("dmesg | grep -i x2apic || true")?;
        ensure!(said.contains("x2apic enabled"), "x2APIC mode is not enabled; the kernel says {said:?}");
    }
    online(guest)
}

/// Checks that Linux has the firmware's runtime services and its framebuffer.
fn efi(console: &mut Console) -> Result<()> {
    console.run("cat /sys/firmware/efi/runtime-map/0/phys_addr")?;
    console.run("dmesg | grep 'efifb: framebuffer at'")?;
    Ok(())
}

/// Checks that the firmware's runtime services work at the addresses that Linux has given them.
fn efi_variables(console: &mut Console) -> Result<()> {
    console.run("mount -t efivarfs none /sys/firmware/efi/efivars")?;
    let variables = console.run("ls /sys/firmware/efi/efivars")?;
    ensure!(variables.contains("BootOrder-"), "the variables are {variables:?}");
    console.run("cat /sys/firmware/efi/efivars/BootOrder-* | hexdump -C")?;
    Ok(())
}

fn online(guest: &mut Guest) -> Result<()> {
    let (wanted, found) = (guest.setup.cpus, guest.console.run("nproc")?);
    ensure!(found.trim() == wanted.to_string(), "nproc says {} and should say {wanted}", found.trim());
    Ok(())
}

fn facts(guest: &mut Guest) -> Result<()> {
    let facts = Facts::collect(&mut guest.console, guest.under_vidar)?;
    let cpus = facts.cpuinfo.lines().filter(|line| line.starts_with("processor")).count();
    ensure!(cpus == guest.setup.cpus as usize, "/proc/cpuinfo has {cpus} CPUs");
    let messages = in_time(&facts.messages);
    guest.facts = Facts { messages, ..facts };
    Ok(())
}

/// `vidarctl` lists every CPU, and each has exits of its own.
fn exits(guest: &mut Guest) -> Result<()> {
    let said = guest.console.run("vidarctl exits --per-cpu --json")?;
    let said: serde_json::Value =
        serde_json::from_str(said.trim()).context("vidarctl's answer is not JSON")?;
    let cpus = said["cpus"].as_array().context("vidarctl's answer has no CPUs")?;
    ensure!(cpus.len() == guest.setup.cpus as usize, "vidarctl lists {} CPUs", cpus.len());
    for (index, cpu) in cpus.iter().enumerate() {
        ensure!(cpu["kinds"]["cpuid"].as_u64() > Some(0), "CPU {index} has no exits: {cpu}");
    }
    vidarctl::names_no_rule(&guest.console.run("vidarctl log")?)
}

fn hotplug(guest: &mut Guest) -> Result<()> {
    off_and_on(&mut guest.console, guest.setup.cpus, ROUNDS)
}

/// Takes each of `cpus` CPUs but the first offline and back online, `rounds` times.
pub fn off_and_on(console: &mut Console, cpus: u32, rounds: u32) -> Result<()> {
    let each = |value: u32| {
        let cpu = |cpu| format!("echo {value} >/sys/devices/system/cpu/cpu{cpu}/online");
        (1..cpus).map(cpu).collect::<Vec<_>>().join(" && ")
    };
    let numbers = (1..=rounds).map(|round| round.to_string()).collect::<Vec<_>>().join(" ");
    let (off, on) = (each(0), each(1));
    let said =
        console.run(&format!("for i in {numbers}; do {off} && nproc && {on} && nproc || break; done"))?;
    let wanted = format!("1\n{cpus}\n").repeat(rounds as usize);
    ensure!(said == wanted, "while CPUs went offline and online, nproc said {said:?}");
    Ok(())
}

/// Puts the guest under load. The load checks its own results, and the kernel's messages are kept.
fn stress(guest: &mut Guest) -> Result<()> {
    let mut disk = "";
    if guest.setup.has_disk() {
        guest.console.run(&modules::insert())?;
        if guest.setup.uefi {
            efi_variables(&mut guest.console)?;
        }
        guest.console.run("for i in 1 2 3 4 5; do [ -e /dev/vda ] || sleep 1; done; [ -e /dev/vda ]")?;
        disk = " /dev/vda";
    }
    let said = run_program(guest, "stress", guest.load, disk)?;
    let counts = said.trim().rsplit("stress: ").next().unwrap_or_default();
    ensure!(counts.starts_with(&format!("cpus={} ", guest.setup.cpus)), "the load reports {said:?}");
    let idle: Vec<_> = counts.split_whitespace().filter(|word| word.ends_with("=0")).collect();
    ensure!(idle.is_empty(), "parts of the load did nothing: {idle:?}");
    guest.late = guest.console.run("dmesg -r")?;
    Ok(())
}

/// Runs a program of the tests for a time. Returns its output.
fn run_program(guest: &mut Guest, name: &str, time: Duration, more: &str) -> Result<String> {
    guest.console.run(&format!("chmod +x /{name}"))?;
    let seconds = time.as_secs();
    // The program prints its result at the end, so the output is read again and again.
    guest.console.run(&format!("/{name} {seconds}{more} >/{name}.txt & true"))?;
    let mut said = String::new();
    for _ in 0..seconds + 60 {
        said = guest.console.run(&format!("sleep 1; cat /{name}.txt"))?;
        if said.contains(&format!("{name}: ")) {
            break;
        }
    }
    Ok(said)
}

/// Changes instructions while an ordinary user's program executes them. Each instruction must be executed or cause a
/// signal, as without a hypervisor. LOCK CPUID causes a signal under Vidar, as on real CPUs, while QEMU executes it.
fn mutate(guest: &mut Guest) -> Result<()> {
    let said = run_program(guest, MUTATE, MUTATING, "")?;
    ensure!(said.contains("mutate: lock="), "the program reports {said:?}");
    ensure!(!guest.under_vidar || said.contains("lock=refused"), "LOCK CPUID was executed: {said:?}");
    for nothing in [" changes=0", " executed=0", " SIGILL=0", " SIGSEGV=0"] {
        ensure!(!said.contains(nothing), "one of the counts is 0: {said:?}");
    }
    online(guest)
}

/// Makes Linux send an NMI to every CPU, each of which prints its backtrace.
fn nmi(guest: &mut Guest) -> Result<()> {
    const COUNT: &str = "dmesg | grep -c 'NMI backtrace for cpu' || true";
    for round in 1..=3 {
        guest.console.run("echo l >/proc/sysrq-trigger; sleep 1")?;
        let said = guest.console.run(COUNT)?;
        let wanted = round * guest.setup.cpus;
        ensure!(said.trim() == wanted.to_string(), "there are {} answers to {wanted} NMIs", said.trim());
    }
    let unknown = guest.console.run("dmesg | grep -i 'nmi received for unknown reason' || true")?;
    ensure!(unknown.trim().is_empty(), "the kernel says: {unknown}");
    Ok(())
}

fn power_off(guest: &mut Guest) -> Result<()> {
    linux::power_off(&mut guest.running, &mut guest.console)
}
