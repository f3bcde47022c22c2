//! Measures what Vidar costs a stock Linux, from GRUB to the shell and at an idle shell.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde::Deserialize;

use super::marks;
use crate::console::{BOOT, Console, PROMPT};
use crate::grub::Menu;
use crate::machine::{Machine, RunningMachine, Spec};
use crate::test::lane::Lane;
use crate::test::{LinuxMachine, Tools, facts, test_dir};

/// The measurements of one boot.
#[derive(Debug, Clone, Default)]
pub struct Boot {
    /// Instructions from GRUB's last command to the shell.
    pub from_grub: u64,
    /// Instructions from the kernel's first one to the shell. In QEMU, they are counted from the beginning of the
    /// kernel's clock.
    pub from_kernel: u64,
    /// Exits by kind up to the shell. Empty for a bare boot.
    pub kinds: BTreeMap<String, u64>,
    /// Exits per second at an idle shell.
    pub idle_per_second: f64,
    /// The bytes of memory that Vidar keeps for itself.
    pub memory: u64,
}

#[derive(Deserialize)]
struct Exits {
    kinds: BTreeMap<String, u64>,
}

#[derive(Deserialize)]
struct Idle {
    per_second: f64,
}

impl Boot {
    /// Exits up to the shell, without CPUID and without the hypercalls by which the guest asks for these numbers.
    pub fn exits_but_cpuid(&self) -> u64 {
        self.kinds
            .iter()
            .filter(|(kind, _)| !["cpuid", "hypercall"].contains(&kind.as_str()))
            .map(|(_, count)| count)
            .sum()
    }
}

/// Boots the first guest, which prints a mark when it reaches the shell. `debugger` has commands for the debugger of
/// Bochs.
pub fn start(
    lane: Lane,
    name: &str,
    under_vidar: bool,
    tools: &Tools,
    options: &str,
    debugger: Option<String>,
) -> Result<(RunningMachine, Console)> {
    let dir = test_dir(&lane.folder(name))?;
    let mut machine = LinuxMachine::new(lane, dir)?;
    machine.guest().cmdline += " VIDAR_MARK=1";
    machine.bare_unless(under_vidar);
    machine.menu = Menu { options: options.to_owned(), last: marks::of(lane), ..machine.menu };
    machine.spec = Spec {
        memory: 1024,
        fixed_clock: true,
        counts_instructions: true,
        stops_at_triple_fault: true,
        debugger,
        ..machine.spec
    };
    machine.start(tools)
}

/// Boots the first guest and measures.
pub fn measure(lane: Lane, under_vidar: bool, tools: &Tools) -> Result<Boot> {
    let name = if under_vidar { "bench-linux-vidar" } else { "bench-linux-bare" };
    let (running, mut console) = start(lane, name, under_vidar, tools, "", None)?;
    let before = console.expect("\nmark ", BOOT)?;
    let mark = console.expect("\r\n", BOOT)?;
    let (end, exits) = mark.split_once(' ').context("the guest's mark is incomplete")?;
    let end: u64 = end.parse().with_context(|| format!("the guest's mark is not a number: {end}"))?;
    let mut boot = Boot::default();
    match lane.machine() {
        Machine::Bochs => {
            let (grub, kernel) = marks::in_log(&running.emulator_log())?;
            (boot.from_grub, boot.from_kernel) = (end - grub, end - kernel);
        }
        _ => {
            boot.from_grub = marks::by_timer(&before, end)?;
            boot.from_kernel = marks::by_kernel(&before)?;
        }
    }
    if under_vidar {
        console.expect(PROMPT, BOOT)?;
        let exits: Exits = serde_json::from_str(exits).context("the guest's exits are not JSON")?;
        boot.kinds = exits.kinds;
        let idle: Idle = serde_json::from_str(console.run("vidarctl exits --idle 60 --json")?.trim())?;
        boot.idle_per_second = idle.per_second;
        let kept = facts::hidden(&console.run("vidarctl status --json")?)?;
        boot.memory = kept.iter().map(|(_, size)| size).sum();
    }
    Ok(boot)
}

/// Returns the exits by kind, as a table in Markdown.
pub fn kinds(boot: &Boot) -> String {
    let some = boot.kinds.iter().filter(|(_, count)| **count > 0);
    let rows: String = some.map(|(kind, count)| format!("| {kind} | {count} |\n")).collect();
    format!("| kind | exits |\n|---|---|\n{rows}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpuid_and_hypercalls_are_not_counted() {
        let kinds = [("cpuid", 500), ("hypercall", 15), ("xsetbv", 2), ("wrmsr", 3)];
        let kinds = kinds.map(|(kind, count)| (kind.to_owned(), count)).into();
        assert_eq!(Boot { kinds, ..Boot::default() }.exits_but_cpuid(), 5);
    }
}
