//! What further CPUs cost: exits of each, and memory.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::console::{BOOT, Console, PROMPT};
use crate::grub::Menu;
use crate::iso::{self, Recipe};
use crate::machine::{Machine, Spec};
use crate::manifest;
use crate::test::lane::Lane;
use crate::test::{Tools, test_dir};

/// What one boot came to.
#[derive(Debug)]
pub struct Boot {
    /// Exits of each CPU up to the shell, but for CPUID and the question.
    pub exits: Vec<u64>,
    /// Exits per second at an idle shell, of all CPUs.
    pub idle_per_second: f64,
    /// KiB of Vidar's memory that are left.
    pub free: u64,
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

/// Boots the first guest on so many CPUs and measures.
pub fn measure(lane: Lane, cpus: u32, tools: &Tools) -> Result<Boot> {
    let dir = test_dir(&lane.folder(&format!("bench-smp-{cpus}")))?;
    let guest = manifest::load()?.into_iter().next().context("the manifest names no guest")?;
    // Linux gets further CPUs up in Bochs only so.
    let options = if lane.machine() == Machine::Bochs { "cpu-startup=emulated" } else { "" };
    let recipe = Recipe {
        menu: Menu {
            default: Some(guest.name.clone()),
            timeout: 0,
            options: options.to_owned(),
            ..Menu::default()
        },
        guests: vec![guest],
        hypervisor: Some(tools.hypervisor.clone()),
        vidarctl: Some(tools.vidarctl.clone()),
    };
    let iso = dir.join("vidar.iso");
    iso::make(&recipe, &iso)?;
    let spec = Spec {
        dir: dir.clone(),
        iso,
        memory: 1024,
        cpus: NonZeroU32::new(cpus),
        fixed_clock: true,
        ..Spec::default()
    };
    let running = lane.machine().start(&spec)?;
    let mut console = Console::new(running.serial()?, &dir.join("serial.log"))?;
    console.expect(PROMPT, BOOT)?;
    let by_cpu: ByCpu = serde_json::from_str(console.run("vidarctl exits --per-cpu --json")?.trim())?;
    let others = |cpu: &Kinds| {
        let others = cpu.kinds.iter().filter(|(kind, _)| !["cpuid", "hypercall"].contains(&kind.as_str()));
        others.map(|(_, count)| count).sum()
    };
    let idle: Idle = serde_json::from_str(console.run("sleep 5; vidarctl exits --idle 30 --json")?.trim())?;
    let free = free(&console.run("vidarctl log")?)?;
    Ok(Boot { exits: by_cpu.cpus.iter().map(others).collect(), idle_per_second: idle.per_second, free })
}

/// KiB that the log says are free.
fn free(log: &str) -> Result<u64> {
    let free =
        log.lines().find_map(|line| line.strip_suffix(" KiB of it free")?.rsplit(' ').next()?.parse().ok());
    free.context("Vidar's log does not say how much of its memory is free")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_free_is_read_from_the_log() {
        let log =
            "vidar: 2 CPUs\nvidar: keeps 0x200000 to 0x3fffff for itself, 1508 KiB of it free\nvidar: x";
        assert_eq!(free(log).unwrap(), 1508);
        assert!(free("vidar: 2 CPUs").is_err());
    }
}
