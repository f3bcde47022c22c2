//! What a guest's Linux knows about its machine, collected over the console.

use anyhow::{Context, Result};

use crate::console::Console;

/// The facts, as the kernel prints them.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// /proc/cpuinfo.
    pub cpuinfo: String,
    /// The clock source in use, and those that could be.
    pub clocksource: String,
    /// /proc/interrupts.
    pub interrupts: String,
    /// A line for each PCI device: address, IDs, class, interrupt, driver, and its resources.
    pub pci: String,
    /// /proc/iomem.
    pub iomem: String,
    /// The kernel's messages with their levels.
    pub messages: String,
    /// Base and size of each piece of memory that Vidar keeps; none on a bare machine.
    pub hidden: Vec<(u64, u64)>,
    /// Whether Vidar shows itself in CPUID.
    pub announced: bool,
}

const CLOCKSOURCE: &str =
    "cd /sys/devices/system/clocksource/clocksource0; cat current_clocksource available_clocksource; cd /";
const PCI: &str = "cd /sys/bus/pci/devices; for d in *; do echo $d $(cat $d/vendor $d/device $d/class $d/irq) \
                   $(readlink $d/driver) $(cat $d/resource); done; cd /";

impl Facts {
    /// Asks the guest behind `console`, whose shell waits.
    pub fn collect(console: &mut Console, under_vidar: bool) -> Result<Self> {
        let messages = console.run("dmesg -r")?;
        // A message in the middle of an answer would spoil it.
        console.run("dmesg -n 1")?;
        let mut kept = Vec::new();
        if under_vidar {
            kept.push(hidden(&console.run("vidarctl status --json")?)?);
            kept.extend(as_well(&console.run("vidarctl log")?));
        }
        Ok(Self {
            cpuinfo: console.run("cat /proc/cpuinfo")?,
            clocksource: console.run(CLOCKSOURCE)?,
            interrupts: console.run("cat /proc/interrupts")?,
            pci: console.run(PCI)?,
            iomem: console.run("cat /proc/iomem")?,
            messages,
            hidden: kept,
            announced: false,
        })
    }
}

/// Base and size of Vidar's memory out of `vidarctl status --json`.
pub fn hidden(status: &str) -> Result<(u64, u64)> {
    let status: serde_json::Value =
        serde_json::from_str(status.trim()).context("vidarctl's answer is no JSON")?;
    let number = |key: &str| status[key].as_u64().with_context(|| format!("vidarctl's answer has no {key}"));
    Ok((number("memory_base")?, number("memory_bytes")?))
}

/// What Vidar's log says that it keeps for starting CPUs.
fn as_well(log: &str) -> Option<(u64, u64)> {
    let line = log.lines().find(|line| line.ends_with("as well, to start CPUs from"))?;
    let mut numbers = line
        .split_whitespace()
        .filter_map(|word| word.strip_prefix("0x").and_then(|digits| u64::from_str_radix(digits, 16).ok()));
    let (first, last) = (numbers.next()?, numbers.next()?);
    Some((first, last + 1 - first))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_as_well_is_read_from_the_log() {
        let log = "vidar: 2 CPUs\nvidar: keeps 0x9e000 to 0x9efff as well, to start CPUs from\nvidar: keeps 0x200000 to";
        assert_eq!(as_well(log), Some((0x9_e000, 0x1000)));
        assert_eq!(as_well("vidar: keeps 0x200000 to 0x3fffff for itself"), None);
    }

    #[test]
    fn the_region_is_read_from_the_status() {
        let status = "{\"version\":\"0.1.0\",\"memory_bytes\":4194304,\"memory_base\":1069547520}\n";
        assert_eq!(hidden(status).unwrap(), (1_069_547_520, 4_194_304));
        assert!(hidden("{}").is_err() && hidden("vidarctl: no Vidar").is_err());
    }
}
