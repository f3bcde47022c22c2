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
    /// Base and size of the memory that Vidar keeps; `None` on a bare machine.
    pub hidden: Option<(u64, u64)>,
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
        let hidden = if under_vidar { Some(hidden(&console.run("vidarctl status --json")?)?) } else { None };
        Ok(Self {
            cpuinfo: console.run("cat /proc/cpuinfo")?,
            clocksource: console.run(CLOCKSOURCE)?,
            interrupts: console.run("cat /proc/interrupts")?,
            pci: console.run(PCI)?,
            iomem: console.run("cat /proc/iomem")?,
            messages,
            hidden,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_region_is_read_from_the_status() {
        let status = "{\"version\":\"0.1.0\",\"memory_bytes\":4194304,\"memory_base\":1069547520}\n";
        assert_eq!(hidden(status).unwrap(), (1_069_547_520, 4_194_304));
        assert!(hidden("{}").is_err() && hidden("vidarctl: no Vidar").is_err());
    }
}
