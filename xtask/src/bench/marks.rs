//! When GRUB started the guest, in each emulator: what GRUB is told to do last, and what becomes of it.

use anyhow::{Context, Result};

use crate::machine::{Machine, TICKS_PER_INSTRUCTION};
use crate::test::lane::Lane;

/// In Bochs: to the port where it listens to its BIOS, and logs a line with the number of ticks so far.
const TO_LOG: &[&str] = &["outb 0x402 0x56", "outb 0x402 0x0a"];

/// What that line ends in.
const GRUB_LINE: &str = "[BIOS  ] V";
/// What Bochs logs first of the kernel: before it enters 64-bit mode, it reads IA32_MISC_ENABLE, which Bochs lacks.
const KERNEL_LINE: &str = "RDMSR: Unknown register 0x1a0";

/// In QEMU: to the serial line, the timer of ACPI's power management at the place that QEMU's BIOS gives it.
const TO_CONSOLE: &[&str] = &["inl -v timer 0x608", "echo timer $timer"];

/// Ticks of that timer in a second, and the number of its bits.
pub const TIMER_FREQUENCY: u128 = 3_579_545;
const TIMER_BITS: u32 = 24;
/// Ticks of QEMU's TSC in a second. Both count from the power-on of the machine.
const TSC_FREQUENCY: u128 = 1_000_000_000;

/// GRUB's last commands before it starts a guest in `lane`.
pub fn of(lane: Lane) -> &'static [&'static str] {
    match lane.machine() {
        Machine::Bochs => TO_LOG,
        _ => TO_CONSOLE,
    }
}

/// Ticks, which are instructions, at GRUB's mark and at the kernel's first instructions, in the log of Bochs.
pub fn in_log(log: &str) -> Result<(u64, u64)> {
    let grub = tick(log, GRUB_LINE, 0).context("GRUB's mark is not in the log of Bochs")?;
    let kernel = tick(log, KERNEL_LINE, grub).context("the kernel's start is not in the log of Bochs")?;
    Ok((grub, kernel))
}

/// The tick of the first line after the tick `after` that ends in `end`, in what Bochs logged: each line begins with
/// ticks, a letter for its level, and a device.
fn tick(log: &str, end: &str, after: u64) -> Option<u64> {
    let lines = log.lines().filter(|line| line.trim_end().ends_with(end));
    let mut ticks = lines.filter_map(|line| line.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok());
    ticks.find(|tick| *tick >= after)
}

/// Instructions from GRUB's mark to the TSC `end` at the shell; `console` is what came before that.
///
/// The timer begins anew every 4.7 s, so it only says how far into such a turn the two are. How many turns there are
/// between them follows from Linux's last message: its clock begins after GRUB's mark, but before a turn is over.
pub fn by_timer(console: &str, end: u64) -> Result<u64> {
    let begin = console.lines().filter_map(|line| line.trim().strip_prefix("timer ")).next_back();
    let begin = begin.context("GRUB did not say its mark")?.trim_start_matches("0x");
    let begin = u128::from(u64::from_str_radix(begin, 16).context("GRUB's mark is no number")?);
    let time = |line: &str| line.strip_prefix('[')?.split_once(']')?.0.trim().parse::<f64>().ok();
    let last = console.lines().filter_map(time).next_back().context("Linux said nothing")?;
    let turn = 1_u128 << TIMER_BITS;
    let end = u128::from(end) * TIMER_FREQUENCY / TSC_FREQUENCY;
    let part = (end % turn + turn - begin % turn) % turn;
    let at_most = (last * TIMER_FREQUENCY as f64) as u128 + turn;
    let turns = at_most.saturating_sub(part) / turn;
    let ticks = (part + turns * turn) * TSC_FREQUENCY / TIMER_FREQUENCY;
    Ok(ticks as u64 / TICKS_PER_INSTRUCTION)
}

/// Instructions from where the kernel's clock begins, which is early, to the shell: what it puts before the line that init
/// gave it to print.
pub fn by_kernel(console: &str) -> Result<u64> {
    let line = console.lines().filter_map(|line| line.trim().strip_suffix("] init: mark")).next_back();
    let time =
        line.and_then(|line| line.strip_prefix('[')).context("the kernel did not print init's mark")?;
    let (seconds, micros) = time.trim().split_once('.').context("the kernel's time has no fraction")?;
    let micros = seconds.parse::<u64>()? * 1_000_000 + micros.parse::<u64>()?;
    Ok(micros * 1000 / TICKS_PER_INSTRUCTION)
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
    fn the_timer_goes_round() {
        let seconds = |mark: &str, last: &str, end: u64| {
            let console = format!("x\r\ntimer {mark}\r\n[    0.1] Linux\r\n[ {last}] Run /init\r\nhello");
            by_timer(&console, end).unwrap() as f64 * TICKS_PER_INSTRUCTION as f64 / 1e9
        };
        let close = |one: f64, other: f64| assert!((one - other).abs() < 1e-5, "{one} {other}");
        // At 1 s GRUB, and at 3 s or 9 s the shell.
        close(seconds("0x369e99", "1.9", 3_000_000_000), 2.0);
        close(seconds("0x369e99", "4.5", 9_000_000_000), 8.0);
        // At 4.5 s GRUB, at 6 s the shell: round once between them.
        close(seconds("f5c9b0", "0.7", 6_000_000_000), 1.5);
        assert!(by_timer("[ 1.0] x", 1).is_err() && by_timer("timer 1", 1).is_err());
        assert!(by_timer("timer x\n[ 1.0] x", 1).is_err());
    }

    #[test]
    fn the_kernel_says_its_time() {
        assert_eq!(by_kernel("[    0.5] x\r\n[   12.000160] init: mark\r\n").unwrap(), 750_010_000);
        assert!(by_kernel("[ 1.000000] init: other").is_err() && by_kernel("1.0] init: mark").is_err());
    }
}
