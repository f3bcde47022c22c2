//! Measures what one exit costs, by the probe.

use std::fmt;

use anyhow::{Result, ensure};

use crate::console::{ANSWER, BOOT};
use crate::grub::{self, Menu};
use crate::machine::TICKS_PER_INSTRUCTION;
use crate::test::Tools;
use crate::test::lane::Lane;
use crate::test::small::{GUEST, Small};

/// The CPU model of Bochs for which the goals were set.
const CPU: &str = "corei7_skylake_x";

/// The line of measurements that the probe prints.
#[derive(Debug, Clone)]
pub struct Answers {
    line: String,
    /// TSC ticks for each instruction.
    scale: u64,
}

/// The instructions of a round trip, measured many times.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Round {
    /// The smallest number.
    pub min: u64,
    /// The mean.
    pub mean: f64,
}

impl fmt::Display for Round {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} / {:.1}", self.min, self.mean)
    }
}

/// Returns the CPU model of a lane's machine, if it is not the default.
pub fn cpu(lane: Lane) -> Option<&'static str> {
    lane.cpu().or((lane == Lane::Vmx).then_some(CPU))
}

/// The machine on which the probe measures.
#[derive(Debug, Clone, Copy)]
pub enum Side {
    /// Without Vidar.
    Bare,
    /// Under Vidar.
    Vidar,
    /// Under Vidar, which keeps a trace of the exits.
    Traced,
}

/// Boots the probe on a machine with `cpus` CPUs, of which it uses one, and returns its measurements.
pub fn measure(lane: Lane, side: Side, cpus: u32, tools: &Tools) -> Result<Answers> {
    let (side, entry, options) = match side {
        Side::Bare => ("bare", grub::bare(GUEST), ""),
        Side::Vidar => ("vidar", GUEST.to_owned(), ""),
        Side::Traced => ("traced", GUEST.to_owned(), "trace=on"),
    };
    let small = Small {
        name: lane.folder(&format!("bench-probe-{side}-{cpus}")),
        cpus,
        lane,
        kernel: tools.probe()?.to_vec(),
        cmdline: "probe=bench".to_owned(),
        menu: Menu { default: Some(entry), options: options.to_owned(), ..Menu::default() },
        memory: 256,
        cpu: cpu(lane),
        ..Small::default()
    };
    let mut booted = small.boot(tools)?;
    let said = booted.console.expect("probe bench: ", BOOT)?;
    ensure!(!said.contains("too little memory is left for a trace"), "no trace is kept: {said}");
    let line = booted.console.expect("\r\n", ANSWER)?;
    let scale = if lane == Lane::Svm { TICKS_PER_INSTRUCTION } else { 1 };
    Ok(Answers { line, scale })
}

impl Answers {
    /// Returns the instructions of `name`, if the probe measured them.
    pub fn round(&self, name: &str) -> Option<Round> {
        let (min, mean) = (self.value(name, "min")?, self.value(name, "mean")?);
        let (min, mean): (u64, f64) = (min.parse().ok()?, mean.parse().ok()?);
        Some(Round { min: min / self.scale, mean: mean / self.scale as f64 })
    }

    /// Returns the number of exits that `name` caused. On a bare machine the probe does not count them.
    pub fn exits(&self, name: &str) -> Option<u64> {
        self.value(name, "exits")?.parse().ok()
    }

    /// How many interrupts of `name` came, and how many were expected.
    pub fn taken(&self, name: &str) -> Option<(u64, u64)> {
        let (taken, of) = self.value(name, "taken")?.split_once('/')?;
        Some((taken.parse().ok()?, of.parse().ok()?))
    }

    /// Returns the value of `key` among those that follow `name`.
    fn value(&self, name: &str, key: &str) -> Option<&str> {
        let words = self.line.split_whitespace().skip_while(|word| *word != name).skip(1);
        let mut values = words.map_while(|word| word.split_once('='));
        values.find(|(other, _)| *other == key).map(|(_, value)| value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measurements_are_found_by_name() {
        let line = "empty min=3 mean=3.00 cpuid min=97 mean=97.01 vmcall none port min=4 mean=4.00 exits=2 syscall #UD \
                    timer taken=9/10 exits=0";
        let answers = Answers { line: line.into(), scale: 1 };
        assert_eq!(answers.round("cpuid"), Some(Round { min: 97, mean: 97.01 }));
        let scaled = Answers { line: "cpuid min=5328 mean=5329.60".into(), scale: 16 };
        assert_eq!(scaled.round("cpuid"), Some(Round { min: 333, mean: 333.1 }));
        assert_eq!(answers.round("port").unwrap().to_string(), "4 / 4.0");
        assert_eq!(answers.round("vmcall"), None);
        assert_eq!(answers.round("other"), None);
        assert_eq!(answers.exits("port"), Some(2));
        assert_eq!((answers.round("syscall"), answers.exits("syscall")), (None, None));
        assert_eq!((answers.taken("timer"), answers.exits("timer")), (Some((9, 10)), Some(0)));
    }
}
