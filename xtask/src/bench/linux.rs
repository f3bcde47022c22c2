//! What a stock Linux costs under Vidar, from GRUB to the shell and at rest.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::console::{BOOT, Console, PROMPT};
use crate::grub::{self, Menu};
use crate::iso::{self, Recipe};
use crate::machine::{Machine, Spec};
use crate::manifest;
use crate::test::{Tools, facts, test_dir};

/// GRUB's last words before it starts the guest: to the port where Bochs listens to its BIOS, and logs a line with
/// the number of ticks so far.
const MARK: &[&str] = &["outb 0x402 0x56", "outb 0x402 0x0a"];

/// What that line ends in.
const GRUB_LINE: &str = "[BIOS  ] V";
/// What Bochs logs first of the kernel: before it enters 64-bit mode, it reads IA32_MISC_ENABLE, which Bochs lacks.
const KERNEL_LINE: &str = "RDMSR: Unknown register 0x1a0";

/// What one boot came to.
#[derive(Debug, Clone, Default)]
pub struct Boot {
    /// Ticks from GRUB's last command to the shell.
    pub from_grub: u64,
    /// Ticks from the kernel's first instructions to the shell.
    pub from_kernel: u64,
    /// Exits by kind up to the shell; none if bare.
    pub kinds: BTreeMap<String, u64>,
    /// Exits per second at an idle shell.
    pub idle_per_second: f64,
    /// Bytes that Vidar keeps.
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
    /// Exits of all kinds but CPUID, up to the shell, without those that the question was.
    pub fn exits_but_cpuid(&self) -> u64 {
        self.kinds
            .iter()
            .filter(|(kind, _)| !["cpuid", "hypercall"].contains(&kind.as_str()))
            .map(|(_, count)| count)
            .sum()
    }
}

/// Boots the first guest and measures.
pub fn measure(under_vidar: bool, tools: &Tools) -> Result<Boot> {
    let dir = test_dir(if under_vidar { "bench-linux-vidar" } else { "bench-linux-bare" })?;
    let mut guest = manifest::load()?.into_iter().next().context("the manifest names no guest")?;
    guest.cmdline += " VIDAR_MARK=1";
    let default = if under_vidar { guest.name.clone() } else { grub::bare(&guest.name) };
    let recipe = Recipe {
        guests: vec![guest],
        menu: Menu { default: Some(default), timeout: 0, last: MARK, ..Menu::default() },
        hypervisor: Some(tools.hypervisor.clone()),
        vidarctl: Some(tools.vidarctl.clone()),
    };
    let iso = dir.join("vidar.iso");
    iso::make(&recipe, &iso)?;
    let spec = Spec {
        dir: dir.clone(),
        iso,
        memory: 1024,
        fixed_clock: true,
        stops_at_triple_fault: true,
        verbose: true,
        ..Spec::default()
    };
    let running = Machine::Bochs.start(&spec)?;
    let mut console = Console::new(running.serial()?, &dir.join("serial.log"))?;
    console.expect("mark ", BOOT)?;
    let mark = console.expect("\r\n", BOOT)?;
    let (end, exits) = mark.split_once(' ').context("the guest's mark is incomplete")?;
    let end: u64 = end.parse().with_context(|| format!("the guest's mark is no number: {end}"))?;
    let log = running.emulator_log();
    let grub = tick(&log, GRUB_LINE, 0).context("GRUB's mark is not in the log of Bochs")?;
    let kernel = tick(&log, KERNEL_LINE, grub).context("the kernel's start is not in the log of Bochs")?;
    let mut boot = Boot { from_grub: end - grub, from_kernel: end - kernel, ..Boot::default() };
    if under_vidar {
        let exits: Exits = serde_json::from_str(exits).context("the guest's exits are no JSON")?;
        boot.kinds = exits.kinds;
        console.expect(PROMPT, BOOT)?;
        let idle: Idle = serde_json::from_str(console.run("vidarctl exits --idle 60 --json")?.trim())?;
        boot.idle_per_second = idle.per_second;
        (_, boot.memory) = facts::hidden(&console.run("vidarctl status --json")?)?;
    }
    Ok(boot)
}

/// The exits by kind, as Markdown.
pub fn kinds(boot: &Boot) -> String {
    let some = boot.kinds.iter().filter(|(_, count)| **count > 0);
    let rows: String = some.map(|(kind, count)| format!("| {kind} | {count} |\n")).collect();
    format!("| kind | exits |\n|---|---|\n{rows}")
}

/// The tick of the first line after the tick `after` that ends in `end`, in what Bochs logged: each line begins with
/// ticks, a letter for its level, and a device.
fn tick(log: &str, end: &str, after: u64) -> Option<u64> {
    let lines = log.lines().filter(|line| line.trim_end().ends_with(end));
    let mut ticks = lines.filter_map(|line| line.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok());
    ticks.find(|tick| *tick >= after)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_found_in_the_log() {
        let log = "00000000000i[      ] Bochs x86 Emulator 2.7\n00000045678e[CPU0  ] RDMSR: Unknown register 0x1a0\n\
                   01412345678i[BIOS  ] V\n\n02412345678e[CPU0  ] RDMSR: Unknown register 0x1a0\n";
        assert_eq!(tick(log, GRUB_LINE, 0), Some(1_412_345_678));
        assert_eq!(tick(log, KERNEL_LINE, 1_412_345_678), Some(2_412_345_678));
        assert_eq!(tick("x", GRUB_LINE, 0), None);
    }

    #[test]
    fn the_question_does_not_count() {
        let kinds = [("cpuid", 500), ("hypercall", 15), ("xsetbv", 2), ("wrmsr", 3)];
        let kinds = kinds.map(|(kind, count)| (kind.to_owned(), count)).into();
        assert_eq!(Boot { kinds, ..Boot::default() }.exits_but_cpuid(), 5);
    }
}
