//! Measures what further CPUs cost: the exits of each, and memory.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::console::Console;
use crate::machine::Spec;
use crate::test::lane::Lane;
use crate::test::{LinuxMachine, Tools, test_dir};

/// The measurements of one boot.
#[derive(Debug)]
pub struct Boot {
    /// Exits of each CPU up to the shell, without CPUID and without the hypercalls by which the guest asks for these
    /// numbers.
    pub exits: Vec<u64>,
    /// Exits per second at an idle shell, of all CPUs.
    pub idle_per_second: f64,
    /// The exits and the timer interrupts under load.
    pub load: Load,
    /// The KiB of Vidar's memory that are still free.
    pub free: u64,
}

/// Exits and local timer interrupts, of all CPUs together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    /// Exits without hypercalls, and without CPUID, which the load's programs execute as they start.
    pub exits: u64,
    /// Timer interrupts.
    pub timer: u64,
}

impl Load {
    /// Exits for 1,000 timer interrupts.
    pub fn exits_per_thousand(self) -> f64 {
        self.exits as f64 * 1000.0 / self.timer as f64
    }

    /// Returns the difference between two counts.
    fn since(self, before: Self) -> Result<Self> {
        let difference = |now: u64, then| now.checked_sub(then);
        let load = difference(self.exits, before.exits).zip(difference(self.timer, before.timer));
        let (exits, timer) = load.filter(|(_, timer)| *timer > 0).context("the load made no interrupts")?;
        Ok(Self { exits, timer })
    }
}

/// Returns a shell command that keeps `cpus` CPUs busy for some seconds.
fn load(cpus: u32) -> String {
    format!("for i in $(seq {cpus}); do timeout 5 sh -c 'while :; do :; done' & done; wait")
}

#[derive(Deserialize)]
struct ByCpu {
    cpus: Vec<Kinds>,
}

#[derive(Deserialize)]
struct Kinds {
    kinds: BTreeMap<String, u64>,
}

#[derive(Deserialize)]
struct Idle {
    per_second: f64,
}

/// Boots the first guest on `cpus` CPUs and measures.
pub fn measure(lane: Lane, cpus: u32, tools: &Tools) -> Result<Boot> {
    let dir = test_dir(&lane.folder(&format!("bench-smp-{cpus}")))?;
    let mut machine = LinuxMachine::new(lane, dir)?;
    lane.machine().option_for_cpus().clone_into(&mut machine.menu.options);
    machine.spec =
        Spec { memory: 1024, cpus: NonZeroU32::new(cpus), fixed_clock: true, verbose: false, ..machine.spec };
    let (_running, mut console) = machine.boot(tools)?;
    let exits = exits(&mut console)?;
    let before = count(&mut console)?;
    console.run(&load(cpus))?;
    let load = count(&mut console)?.since(before)?;
    let idle: Idle = serde_json::from_str(console.run("sleep 5; vidarctl exits --idle 30 --json")?.trim())?;
    let free = free(&console.run("vidarctl log")?)?;
    Ok(Boot { exits, idle_per_second: idle.per_second, load, free })
}

/// Exits of each CPU, without CPUID and hypercalls.
fn exits(console: &mut Console) -> Result<Vec<u64>> {
    let by_cpu: ByCpu = serde_json::from_str(console.run("vidarctl exits --per-cpu --json")?.trim())?;
    let others = |cpu: &Kinds| {
        let others = cpu.kinds.iter().filter(|(kind, _)| !["cpuid", "hypercall"].contains(&kind.as_str()));
        others.map(|(_, count)| count).sum()
    };
    Ok(by_cpu.cpus.iter().map(others).collect())
}

/// Counts the exits and timer interrupts up to now.
fn count(console: &mut Console) -> Result<Load> {
    let timer = timer(&console.run("grep LOC: /proc/interrupts")?)?;
    Ok(Load { exits: exits(console)?.iter().sum(), timer })
}

/// Returns the sum of the numbers in Linux' line of timer interrupts, which has one for each CPU.
fn timer(line: &str) -> Result<u64> {
    let numbers = line.trim().strip_prefix("LOC:").context("Linux does not count timer interrupts")?;
    Ok(numbers.split_whitespace().map_while(|word| word.parse::<u64>().ok()).sum())
}

/// Returns the KiB that are free according to Vidar's log.
pub fn free(log: &str) -> Result<u64> {
    let free =
        log.lines().find_map(|line| line.strip_suffix(" KiB of it free")?.rsplit(' ').next()?.parse().ok());
    free.context("Vidar's log does not say how much of its memory is free")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timer_interrupts_of_all_cpus_are_added() {
        assert_eq!(timer(" LOC:        123         45   Local timer interrupts\r\n").unwrap(), 168);
        assert!(timer("NMI: 1").is_err());
    }

    #[test]
    fn a_load_is_the_difference_between_two_counts() {
        let (before, after) = (Load { exits: 10, timer: 100 }, Load { exits: 16, timer: 1600 });
        let load = after.since(before).unwrap();
        assert_eq!((load, load.exits_per_thousand()), (Load { exits: 6, timer: 1500 }, 4.0));
        assert!(before.since(before).is_err() && before.since(after).is_err());
    }

    #[test]
    fn free_memory_is_read_from_the_log() {
        let log =
            "vidar: 2 CPUs\nvidar: keeps 0x200000 to 0x3fffff for itself, 1508 KiB of it free\nvidar: x";
        assert_eq!(free(log).unwrap(), 1508);
        assert!(free("vidar: 2 CPUs").is_err());
    }
}
