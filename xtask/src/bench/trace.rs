//! How exits come in over the time of a boot. Nothing in the guest or in Vidar takes part: the emulator is asked what
//! Vidar's counters hold in physical memory while the machine runs.

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

/// What Vidar says of the counters, in its log at `log=debug`.
const SAID: &str = "the exits of the boot CPU are counted at ";
/// What the guest says first at the shell.
const SHELL: &str = "\nmark ";

/// Instructions between two looks in Bochs, and how many looks there are: to well after the shell.
const STEP: u64 = 5_000_000;
const STEPS: usize = 800;
/// Time between two looks at QEMU's machine.
const PAUSE: Duration = Duration::from_millis(5);

/// The counters at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// Instructions that the machine has executed, from any moment on.
    pub at: u64,
    /// Exits of all kinds.
    pub all: u64,
    /// Those that are neither CPUID nor hypercalls, of which the guest makes some at the shell.
    pub others: u64,
}

impl Sample {
    fn new(at: u64, counters: &[u64]) -> Self {
        let all = counters.iter().sum();
        let aside = [ExitKind::Cpuid, ExitKind::Hypercall].map(|kind| counters[kind as usize]);
        Self { at, all, others: all - aside.iter().sum::<u64>() }
    }
}

/// Boots the first guest under Vidar, and looks at the counters until the shell is there.
pub fn record(lane: Lane, tools: &Tools) -> Result<Vec<Sample>> {
    let samples = match lane.machine() {
        Machine::Bochs => in_bochs(lane, tools)?,
        _ => in_qemu(lane, tools)?,
    };
    from_first_to_last_exit(&samples)
}

/// QEMU's monitor reads the memory of a machine that runs, and the timer of its power management for the time.
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
        let samples = samples.join().expect("it does not panic");
        shell.and(samples)
    })
}

/// The timer of ACPI's power management, at the place that QEMU's BIOS gives it.
fn timer(monitor: &mut Monitor) -> Result<u32> {
    let said = monitor.execute("human-monitor-command", &json!({ "command-line": "i /w 0x608" }))?;
    let said = said.as_str().context("QEMU does not say what is at the port")?;
    let number = said.trim().rsplit("0x").next().unwrap_or_default();
    u32::from_str_radix(number, 16).with_context(|| format!("QEMU says of the port: {said}"))
}

/// Makes one time of a timer that begins anew every few seconds.
#[derive(Debug, Default)]
struct Clock {
    last: Option<u32>,
    ticks: u64,
}

impl Clock {
    /// Instructions since the first look at the timer.
    fn instructions(&mut self, timer: u32) -> u64 {
        let since = timer.wrapping_sub(self.last.unwrap_or(timer)) & 0xff_ffff;
        self.last = Some(timer);
        self.ticks += u64::from(since);
        let nanoseconds = u128::from(self.ticks) * 1_000_000_000 / TIMER_FREQUENCY;
        nanoseconds as u64 / TICKS_PER_INSTRUCTION
    }
}

/// The debugger of Bochs goes so many instructions at a time and shows the memory. It is told so before the machine starts;
/// so where the counters are is found out in a boot before that.
fn in_bochs(lane: Lane, tools: &Tools) -> Result<Vec<Sample>> {
    let address = {
        let (_running, mut console) = linux::start(lane, "bench-trace", true, tools, "log=debug", None)?;
        address(&mut console)?
    };
    // From the power-on to Vidar there is nothing to see.
    let look = format!("s {STEP}\nxp /{}gx {address:#x}\n", ExitKind::COUNT);
    let commands = look.repeat(STEPS);
    let (running, mut console) = linux::start(lane, "bench-trace", true, tools, "log=debug", Some(commands))?;
    console.expect(SHELL, BOOT)?;
    debugger_output(&running.emulator_log())
}

/// What the debugger of Bochs said: `Next at t=` with the number of instructions, and then the memory, in lines of an
/// address, a colon and some words.
fn debugger_output(said: &str) -> Result<Vec<Sample>> {
    let mut samples = Vec::new();
    for part in said.split("Next at t=").skip(1) {
        let mut lines = part.lines();
        let at = lines.next().and_then(|at| at.trim().parse().ok()).context("the debugger does not count")?;
        let words = lines.filter(|line| line.starts_with("0x")).filter_map(|line| line.split_once(":\t"));
        let words = words.flat_map(|(_, words)| words.split_whitespace());
        let counters: Vec<_> =
            words.filter_map(|word| u64::from_str_radix(word.strip_prefix("0x")?, 16).ok()).collect();
        // After the last step nothing is shown.
        if counters.len() == ExitKind::COUNT {
            samples.push(Sample::new(at, &counters));
        }
    }
    Ok(samples)
}

/// Where the counters are in physical memory.
fn address(console: &mut Console) -> Result<u64> {
    console.expect(SAID, BOOT)?;
    let line = console.expect("\r\n", BOOT)?;
    let number = line.trim().trim_start_matches("0x");
    u64::from_str_radix(number, 16).with_context(|| format!("Vidar says of its counters: {line}"))
}

/// The samples from the last one before the first exit to the last exit. Before Vidar is loaded, something else is in its
/// memory; and after the last exit, with which the guest asks at the shell for the numbers of exits, it idles.
fn from_first_to_last_exit(samples: &[Sample]) -> Result<Vec<Sample>> {
    let Some(last) = samples.last() else { bail!("nobody has looked at the counters") };
    ensure!(last.all > 0, "there were no exits");
    let begin = samples.iter().rposition(|sample| sample.all == 0).unwrap_or(0);
    let samples = &samples[begin..];
    ensure!(samples.is_sorted_by_key(|sample| sample.all), "the counters go back");
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
    fn what_was_there_before_vidar_does_not_count() {
        let seen = samples(&[(10, 9999), (20, 0), (30, 0), (40, 5), (50, 6), (60, 6)]);
        assert_eq!(from_first_to_last_exit(&seen).unwrap(), samples(&[(0, 0), (10, 5), (20, 6)]));
        assert!(
            from_first_to_last_exit(&samples(&[(1, 0)])).is_err() && from_first_to_last_exit(&[]).is_err()
        );
        assert!(from_first_to_last_exit(&samples(&[(1, 0), (2, 5), (3, 4)])).is_err());
    }

    #[test]
    fn the_timer_goes_round() {
        let mut clock = Clock::default();
        assert_eq!(clock.instructions(0xff_ff00), 0);
        let second = TIMER_FREQUENCY as u32;
        assert_eq!(clock.instructions(second - 0x100), 1_000_000_000 / TICKS_PER_INSTRUCTION);
    }

    #[test]
    fn the_debugger_is_understood() {
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
