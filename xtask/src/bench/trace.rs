//! Records the numbers of exits over the time of a boot. Neither the guest nor Vidar takes part in it: while the
//! machine runs, the emulator reads Vidar's counters in physical memory.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::json;
use vidar_abi::ExitKind;

use super::linux;
use super::marks::TIMER_FREQUENCY;
use crate::console::{BOOT, Console};
use crate::machine::Machine;
use crate::machine::TICKS_PER_INSTRUCTION;
use crate::machine::monitor::Monitor;
use crate::test::Tools;
use crate::test::lane::Lane;

/// The message in Vidar's log, at `log=debug`, that has the address of the counters.
const SAID: &str = "the exits of the boot CPU are counted at ";
/// The guest's first output at the shell.
const SHELL: &str = "\nmark ";

/// In Bochs, the number of instructions between two samples, and the number of samples, which is enough to reach the
/// shell.
const STEP: u64 = 5_000_000;
const STEPS: usize = 800;
/// In QEMU, the time between two samples.
const PAUSE: Duration = Duration::from_millis(5);

/// The counters at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// The instructions that the machine has executed since some fixed moment.
    pub at: u64,
    /// Exits of all kinds.
    pub all: u64,
    /// Exits that are neither CPUID nor hypercalls, of which the guest makes some at the shell.
    pub others: u64,
}

impl Sample {
    fn new(at: u64, counters: &[u64]) -> Self {
        let all = counters.iter().sum();
        let aside = [ExitKind::Cpuid, ExitKind::Hypercall].map(|kind| counters[kind as usize]);
        Self { at, all, others: all - aside.iter().sum::<u64>() }
    }
}

/// Boots the first guest under Vidar, and samples the counters until it reaches the shell.
pub fn record(lane: Lane, tools: &Tools) -> Result<Vec<Sample>> {
    let samples = match lane.machine() {
        Machine::Bochs => in_bochs(lane, tools)?,
        _ => in_qemu(lane, tools)?,
    };
    from_first_to_last_exit(&samples)
}

/// Records in QEMU, whose monitor reads memory and the power-management timer while the machine runs.
fn in_qemu(lane: Lane, tools: &Tools) -> Result<Vec<Sample>> {
    let (mut running, mut console) = linux::start(lane, "bench-trace", true, tools, "log=debug", None)?;
    let mut monitor = running.monitor()?;
    let address = address(&mut console)?;
    let at_the_shell = AtomicBool::new(false);
    thread::scope(|scope| {
        let samples = scope.spawn(|| {
            let (mut samples, mut clock) = (Vec::new(), Clock::default());
            loop {
                let last = at_the_shell.load(Ordering::Relaxed);
                let bytes = monitor.physical(address, ExitKind::COUNT * 8)?;
                let counters: Vec<_> =
                    bytes.as_chunks().0.iter().map(|bytes| u64::from_le_bytes(*bytes)).collect();
                samples.push(Sample::new(clock.instructions(timer(&mut monitor)?), &counters));
                if last {
                    return Ok(samples);
                }
                thread::sleep(PAUSE);
            }
        });
        let shell = console.expect(SHELL, BOOT);
        at_the_shell.store(true, Ordering::Relaxed);
        let samples = samples.join().expect("sampling does not panic");
        shell.and(samples)
    })
}

/// Reads ACPI's power-management timer, at the port that QEMU's BIOS gives it.
fn timer(monitor: &mut Monitor) -> Result<u32> {
    let said = monitor.execute("human-monitor-command", &json!({ "command-line": "i /w 0x608" }))?;
    let said = said.as_str().context("QEMU does not say what it reads from the port")?;
    let number = said.trim().rsplit("0x").next().unwrap_or_default();
    u32::from_str_radix(number, 16)
        .with_context(|| format!("QEMU's answer for the port is not a number: {said}"))
}

/// Turns a timer that wraps every few seconds into a continuous clock.
#[derive(Debug, Default)]
struct Clock {
    last: Option<u32>,
    ticks: u64,
}

impl Clock {
    /// Returns the instructions since the first call, given the timer's present value.
    fn instructions(&mut self, timer: u32) -> u64 {
        let since = timer.wrapping_sub(self.last.unwrap_or(timer)) & 0xff_ffff;
        self.last = Some(timer);
        self.ticks += u64::from(since);
        let nanoseconds = u128::from(self.ticks) * 1_000_000_000 / TIMER_FREQUENCY;
        nanoseconds as u64 / TICKS_PER_INSTRUCTION
    }
}

/// Records in Bochs, whose debugger executes [`STEP`] instructions at a time and then shows the memory. It gets its
/// commands before the machine starts, so the address of the counters is taken from an earlier boot.
fn in_bochs(lane: Lane, tools: &Tools) -> Result<Vec<Sample>> {
    let address = {
        let (_running, mut console) = linux::start(lane, "bench-trace", true, tools, "log=debug", None)?;
        address(&mut console)?
    };
    // The counters mean nothing before Vidar starts; `from_first_to_last_exit` drops those samples.
    let look = format!("s {STEP}\nxp /{}gx {address:#x}\n", ExitKind::COUNT);
    let commands = look.repeat(STEPS);
    let (running, mut console) = linux::start(lane, "bench-trace", true, tools, "log=debug", Some(commands))?;
    console.expect(SHELL, BOOT)?;
    debugger_output(&running.emulator_log())
}

/// Reads the samples from the output of Bochs' debugger: `Next at t=` with the number of instructions, and then the
/// memory, in lines of an address, a colon and some words.
fn debugger_output(said: &str) -> Result<Vec<Sample>> {
    let mut samples = Vec::new();
    for part in said.split("Next at t=").skip(1) {
        let mut lines = part.lines();
        let at = lines.next().and_then(|at| at.trim().parse().ok());
        let at = at.context("the debugger does not print the number of instructions")?;
        let words = lines.filter(|line| line.starts_with("0x")).filter_map(|line| line.split_once(":\t"));
        let words = words.flat_map(|(_, words)| words.split_whitespace());
        let counters: Vec<_> =
            words.filter_map(|word| u64::from_str_radix(word.strip_prefix("0x")?, 16).ok()).collect();
        // The debugger may stop after a step, before it shows the memory.
        if counters.len() == ExitKind::COUNT {
            samples.push(Sample::new(at, &counters));
        }
    }
    Ok(samples)
}

/// Returns the physical address of the counters.
fn address(console: &mut Console) -> Result<u64> {
    console.expect(SAID, BOOT)?;
    let line = console.expect("\r\n", BOOT)?;
    let number = line.trim().trim_start_matches("0x");
    u64::from_str_radix(number, 16)
        .with_context(|| format!("Vidar's address of its counters is not a number: {line}"))
}

/// Returns the samples from the last one before the first exit to the last exit. Before Vidar is loaded, its memory
/// holds something else. After the last exit, by which the guest asks at the shell for the numbers of exits, the guest
/// is idle.
fn from_first_to_last_exit(samples: &[Sample]) -> Result<Vec<Sample>> {
    let Some(last) = samples.last() else { bail!("there are no samples of the counters") };
    ensure!(last.all > 0, "there were no exits");
    let begin = samples.iter().rposition(|sample| sample.all == 0).unwrap_or(0);
    let samples = &samples[begin..];
    ensure!(samples.is_sorted_by_key(|sample| sample.all), "the counters decrease");
    let samples = &samples[..=samples.partition_point(|sample| sample.all < last.all)];
    let first = samples[0].at;
    Ok(samples.iter().map(|sample| Sample { at: sample.at - first, ..*sample }).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(all: &[(u64, u64)]) -> Vec<Sample> {
        all.iter().map(|&(at, all)| Sample { at, all, others: 0 }).collect()
    }

    #[test]
    fn samples_from_before_vidar_are_dropped() {
        let seen = samples(&[(10, 9999), (20, 0), (30, 0), (40, 5), (50, 6), (60, 6)]);
        assert_eq!(from_first_to_last_exit(&seen).unwrap(), samples(&[(0, 0), (10, 5), (20, 6)]));
        assert!(
            from_first_to_last_exit(&samples(&[(1, 0)])).is_err() && from_first_to_last_exit(&[]).is_err()
        );
        assert!(from_first_to_last_exit(&samples(&[(1, 0), (2, 5), (3, 4)])).is_err());
    }

    #[test]
    fn the_clock_continues_when_the_timer_wraps() {
        let mut clock = Clock::default();
        assert_eq!(clock.instructions(0xff_ff00), 0);
        let second = TIMER_FREQUENCY as u32;
        assert_eq!(clock.instructions(second - 0x100), 1_000_000_000 / TICKS_PER_INSTRUCTION);
    }

    #[test]
    fn samples_are_read_from_the_debuggers_output() {
        let words = |first: u64| -> String {
            let line = |index: usize| {
                let words: String = (2 * index..(2 * index + 2).min(ExitKind::COUNT))
                    .map(|i| format!("\t0x{:016x}", first * u64::from(i == 0)))
                    .collect();
                format!("0x0000000000312340 <bogus+{:8}>:{words}\n", index * 16)
            };
            format!("[bochs]:\n{}", (0..ExitKind::COUNT.div_ceil(2)).map(line).collect::<String>())
        };
        let said = format!(
            "Next at t=5000000\n(0) [0x0000fff0] f000:fff0: nop ; 90\n{}Next at t=10000000\n(0) x\n{}Next at t=15000000\n",
            words(0),
            words(7)
        );
        let expected =
            [Sample { at: 5_000_000, all: 0, others: 0 }, Sample { at: 10_000_000, all: 7, others: 0 }];
        assert_eq!(debugger_output(&said).unwrap(), expected);
    }
}
