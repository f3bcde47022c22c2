//! Collects over the console what a guest's Linux knows about its machine.

use anyhow::{Context, Result};

use crate::console::Console;

/// The facts, as the kernel prints them.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// The content of /proc/cpuinfo.
    pub cpuinfo: String,
    /// The clock source in use, and the available ones.
    pub clocksource: String,
    /// The content of /proc/interrupts.
    pub interrupts: String,
    /// A line for each PCI device, with its address, IDs, class, interrupt, driver, and resources.
    pub pci: String,
    /// The content of /proc/iomem.
    pub iomem: String,
    /// A line for each vulnerability that the kernel lists, with its name, and what is done about it.
    pub vulnerabilities: String,
    /// A line for each source of events that `perf` can count.
    pub event_sources: String,
    /// The kernel's messages with their levels.
    pub messages: String,
    /// The base and the size of each piece of memory that Vidar keeps. Empty on a bare machine.
    pub hidden: Vec<(u64, u64)>,
    /// True if Vidar shows itself in CPUID.
    pub announced: bool,
}

const CLOCKSOURCE: &str =
    "cd /sys/devices/system/clocksource/clocksource0; cat current_clocksource available_clocksource; cd /";
const PCI: &str = "cd /sys/bus/pci/devices; for d in *; do echo $d $(cat $d/vendor $d/device $d/class $d/irq) \
                   $(readlink $d/driver) $(cat $d/resource); done; cd /";

const VULNERABILITIES: &str =
    "cd /sys/devices/system/cpu/vulnerabilities; for f in *; do echo $f: $(cat $f); done; cd /";

impl Facts {
    /// Collects the facts from the guest at `console`, whose shell must be waiting for a command.
    pub fn collect(console: &mut Console, under_vidar: bool) -> Result<Self> {
        let messages = console.run("dmesg -r")?;
        let kept = if under_vidar { hidden(&console.run("vidarctl status --json")?)? } else { Vec::new() };
        Ok(Self {
            cpuinfo: console.run("cat /proc/cpuinfo")?,
            clocksource: console.run(CLOCKSOURCE)?,
            interrupts: console.run("cat /proc/interrupts")?,
            pci: console.run(PCI)?,
            iomem: console.run("cat /proc/iomem")?,
            vulnerabilities: console.run(VULNERABILITIES)?,
            event_sources: console.run("ls -1 /sys/bus/event_source/devices")?,
            messages,
            hidden: kept,
            announced: false,
        })
    }
}

/// Returns the base and the size of each piece of Vidar's memory, from the output of `vidarctl status --json`. The
/// piece with Vidar's image comes first.
pub fn hidden(status: &str) -> Result<Vec<(u64, u64)>> {
    let status: serde_json::Value =
        serde_json::from_str(status.trim()).context("vidarctl's answer is not JSON")?;
    let pieces = status["memory"].as_array().filter(|pieces| !pieces.is_empty());
    let piece = |piece: &serde_json::Value| piece["base"].as_u64().zip(piece["bytes"].as_u64());
    let pieces = pieces.and_then(|pieces| pieces.iter().map(piece).collect());
    pieces.context("vidarctl's answer has no memory")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vidars_memory_is_read_from_the_status() {
        let status =
            "{\"memory_bytes\":4098,\"memory\":[{\"base\":7,\"bytes\":2},{\"base\":1,\"bytes\":4096}]}\n";
        assert_eq!(hidden(status).unwrap(), [(7, 2), (1, 4096)]);
        assert!(hidden("{\"memory\":[]}").is_err());
        assert!(hidden("{}").is_err() && hidden("vidarctl: no Vidar").is_err());
    }
}
