//! Counts the exits that the guard costs a stock Linux with two CPUs: in a boot, in an administrator's ordinary work,
//! and while it idles, with each value of the option `guard=`. Also finds out how much memory it takes.

use std::collections::BTreeMap;
use std::fs;
use std::num::NonZeroU32;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use super::smp;
use crate::console::{ANSWER, BOOT, Console};
use crate::machine::{Machine, Spec};
use crate::test::lane::Lane;
use crate::test::smp::for_several_cpus;
use crate::test::{LinuxMachine, Tools, test_dir, work};
use crate::{initramfs, modules};

/// The values of the option.
const VALUES: [&str; 4] = ["off", "cpu", "data", "audit"];
/// The module that is loaded and unloaded.
const MODULE: &str = "dummy";
/// The file with the work, in the guest's root directory.
const SCRIPT: &str = "work";
/// The seconds for which the guest idles.
const IDLE: u32 = 20;

/// The work in a lane.
#[derive(Debug, Clone, Copy)]
struct Load {
    /// How often the work is done.
    rounds: u32,
    /// The seconds that the guest sleeps after each time.
    pause: u32,
}

impl Load {
    /// Returns the work of a lane. In QEMU it takes about a minute. Bochs is slow, so the same work is done less often
    /// there.
    fn of(lane: Lane) -> Self {
        match lane.machine() {
            Machine::Bochs => Self { rounds: 2, pause: 2 },
            _ => Self { rounds: 4, pause: 5 },
        }
    }

    /// Returns the shell script that does the work.
    fn script(self) -> String {
        let load = work::load("/lib/modules", MODULE);
        let steps = work::WORK.iter().chain([&work::CPU_OFF_AND_ON]);
        let steps: String = steps.map(|step| format!("{step}\n")).collect();
        let Self { rounds, pause } = self;
        format!("set -e\nfor i in $(seq {rounds}); do\n{steps}{load}\nsleep {pause}\ndone\n")
    }
}

#[derive(Deserialize)]
struct Kinds {
    kinds: BTreeMap<String, u64>,
}

/// Exits by the groups of kinds that the table has. Hypercalls are left out, since by them the guest asks for these
/// numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Exits([u64; GROUPS.len() + 1]);

/// The groups, with the kinds in each. All other kinds are in a further one.
const GROUPS: [(&str, &[&str]); 4] = [
    ("CPUID", &["cpuid"]),
    ("CR0 and CR4", &["control-register"]),
    ("MSRs", &["rdmsr", "wrmsr"]),
    ("second stage", &["second-stage"]),
];

impl Exits {
    /// Reads them from what `vidarctl exits --json` prints, or `--idle` with it.
    fn parse(json: &str) -> Result<Self> {
        let Kinds { kinds } = serde_json::from_str(json.trim()).context("the guest's exits are not JSON")?;
        let group = |kind: &str| GROUPS.iter().position(|(_, kinds)| kinds.contains(&kind));
        let mut exits = Self([0; _]);
        for (kind, count) in kinds.iter().filter(|(kind, _)| *kind != "hypercall") {
            exits.0[group(kind).unwrap_or(GROUPS.len())] += count;
        }
        Ok(exits)
    }

    /// Returns the exits since an earlier count.
    fn since(self, before: Self) -> Self {
        let mut exits = self;
        exits.0.iter_mut().zip(before.0).for_each(|(count, before)| *count = count.saturating_sub(before));
        exits
    }

    fn cells(self) -> String {
        self.0.iter().map(|count| format!(" {count} |")).collect()
    }
}

/// The measurements with one value of the option.
#[derive(Debug)]
struct Row {
    value: &'static str,
    boot: Exits,
    work: Exits,
    idle: Exits,
    /// The seconds that the work took, by the guest's clock.
    seconds: f64,
    /// The KiB of Vidar's memory that are free as the guest starts, and those that the lock takes then.
    memory: (u64, u64),
}

/// A span of time: its name, and what was counted in it.
type Span = (&'static str, fn(&Row) -> Exits);

/// Measures in `lane`, and returns the tables as Markdown.
pub fn measure(lane: Lane, tools: &Tools) -> Result<String> {
    let rows = VALUES.into_iter().map(|value| row(lane, value, tools)).collect::<Result<Vec<_>>>()?;
    let Load { rounds, pause } = Load::of(lane);
    let seconds = rows.iter().map(|row| row.seconds);
    let (least, most) = (seconds.clone().fold(f64::MAX, f64::min), seconds.fold(0.0, f64::max));
    Ok(format!(
        "{} in {}, with 2 CPUs. The work is {rounds} rounds with {pause} s of sleep after each, which took {least:.0} to \
         {most:.0} s by the guest's clock.\n\n{}",
        lane.extension(),
        lane.machine().name(),
        table(&rows)
    ))
}

/// Returns the table of the exits, and that of the memory.
fn table(rows: &[Row]) -> String {
    let names: String = GROUPS.iter().map(|(name, _)| format!(" {name} |")).collect();
    let columns = "---|".repeat(GROUPS.len() + 3);
    let mut text = format!("| | guard= |{names} the rest |\n|{columns}\n");
    let spans: [Span; 3] =
        [("boot to the shell", |row| row.boot), ("work", |row| row.work), ("20 s idle", |row| row.idle)];
    for (name, exits) in spans {
        for row in rows {
            text += &format!("| {name} | {} |{}\n", row.value, exits(row).cells());
        }
    }
    text += "\n| guard= | free as the guest starts, KiB | taken by the lock, KiB |\n|---|---|---|\n";
    for Row { value, memory: (free, taken), .. } in rows {
        text += &format!("| {value} | {free} | {taken} |\n");
    }
    text
}

/// Boots the first guest with `guard=` and this value, and measures.
fn row(lane: Lane, value: &'static str, tools: &Tools) -> Result<Row> {
    let dir = test_dir(&lane.folder(&format!("bench-guard-{value}")))?;
    let mut machine = LinuxMachine::new(lane, dir.clone())?;
    let modules = modules::archive(machine.guest(), &[MODULE])?;
    machine.add_initrd(modules);
    let script = dir.join(SCRIPT);
    let file = (SCRIPT.to_owned(), Load::of(lane).script().into_bytes());
    fs::write(&script, initramfs::pack_files(&[], &[file])?)?;
    machine.add_initrd(script);
    machine.guest().cmdline += for_several_cpus(lane);
    machine.menu.options =
        format!("guard={value} {}", lane.machine().option_for_cpus()).trim_end().to_owned();
    machine.spec = Spec { cpus: NonZeroU32::new(2), fixed_clock: true, verbose: false, ..machine.spec };
    let (_running, mut console) = machine.boot(tools)?;
    let boot = exits(&mut console)?;
    let free = smp::free(&console.run("vidarctl log")?)?;
    let taken = lock(&mut console, value)?;
    work::PREPARE.iter().try_for_each(|command| console.run(command).map(drop))?;
    let (before, begun) = (exits(&mut console)?, uptime(&mut console)?);
    console.run_within(&format!("sh /{SCRIPT}"), BOOT)?;
    let (work, seconds) = (exits(&mut console)?.since(before), uptime(&mut console)? - begun);
    let idle = console.run_within(&format!("sleep 2; vidarctl exits --idle {IDLE} --json"), ANSWER)?;
    let idle = Exits::parse(&idle)?;
    let status = console.run("vidarctl status")?;
    ensure!(value == "off" || status.contains("; 0 refused"), "the guard has refused something: {status}");
    Ok(Row { value, boot, work, idle, seconds, memory: (free, taken) })
}

/// Locks the kernel, if `guard=` with this value can. Returns how many KiB that took.
fn lock(console: &mut Console, value: &str) -> Result<u64> {
    if ["off", "cpu"].contains(&value) {
        return Ok(0);
    }
    console.run("vidarctl guard lock")?;
    taken(&console.run("vidarctl log")?)
}

/// Returns the KiB that the lock took according to Vidar's log.
fn taken(log: &str) -> Result<u64> {
    let taken = log.lines().find_map(|line| {
        line.strip_suffix(" KiB for page tables")?.split_once("the guard takes ")?.1.parse().ok()
    });
    taken.context("Vidar's log does not say how much memory the lock takes")
}

fn exits(console: &mut Console) -> Result<Exits> {
    Exits::parse(&console.run("vidarctl exits --json")?)
}

/// Returns the seconds since the guest started, by its own clock.
fn uptime(console: &mut Console) -> Result<f64> {
    let said = console.run("cat /proc/uptime")?;
    let seconds = said.split(' ').next().and_then(|word| word.parse().ok());
    seconds.with_context(|| format!("/proc/uptime is {said:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exits_are_counted_by_group_without_hypercalls() {
        let json = "{\"kinds\":{\"cpuid\":5,\"rdmsr\":1,\"wrmsr\":2,\"control-register\":7,\"hypercall\":9,\"init\":1,\
            \"sipi\":1,\"second-stage\":4}}\n";
        let exits = Exits::parse(json).unwrap();
        assert_eq!(exits, Exits([5, 7, 3, 4, 2]));
        assert_eq!(exits.since(Exits([1, 7, 1, 0, 2])), Exits([4, 0, 2, 4, 0]));
        assert!(Exits::parse("{}").is_err());
    }

    #[test]
    fn each_value_has_a_line_for_each_span() {
        let exits = Exits([1, 2, 3, 4, 5]);
        let row =
            |value| Row { value, boot: exits, work: exits, idle: exits, seconds: 1.0, memory: (396, 8) };
        let text = table(&VALUES.map(row));
        assert!(
            text.contains("\n| work | data | 1 | 2 | 3 | 4 | 5 |\n")
                && text.ends_with("| audit | 396 | 8 |\n")
        );
        assert_eq!(text.lines().count(), 2 + 3 * VALUES.len() + 3 + VALUES.len());
    }

    #[test]
    fn the_memory_of_the_lock_is_read_from_the_log() {
        assert_eq!(taken("vidar: x\nvidar: the guard takes 40 KiB for page tables\nvidar: y").unwrap(), 40);
        assert!(taken("vidar: x").is_err());
    }
}
