//! Finds out when GRUB started the guest. GRUB's last commands leave a mark, whose form depends on the emulator.

use anyhow::{Context, Result};

use crate::machine::{Machine, TICKS_PER_INSTRUCTION};
use crate::test::lane::Lane;

/// GRUB's commands in Bochs: they write to the port for messages of the BIOS, and Bochs logs a line with the number of
/// ticks so far.
const TO_LOG: &[&str] = &["outb 0x402 0x56", "outb 0x402 0x0a"];

/// The end of that line.
const GRUB_LINE: &str = "[BIOS  ] V";
/// The end of the first line that Bochs logs about the kernel. Before the kernel enters 64-bit mode, it reads
/// IA32_MISC_ENABLE, which Bochs lacks.
const KERNEL_LINE: &str = "RDMSR: Unknown register 0x1a0";

/// GRUB's commands in QEMU: they print ACPI's power-management timer, at the port that QEMU's BIOS gives it, to the
/// serial line.
const TO_CONSOLE: &[&str] = &["inl -v timer 0x608", "echo timer $timer"];

/// The frequency of that timer in Hz, and the number of its bits.
pub const TIMER_FREQUENCY: u128 = 3_579_545;
const TIMER_BITS: u32 = 24;
/// The frequency of QEMU's TSC in Hz. The timer and the TSC both count from the power-on of the machine.
const TSC_FREQUENCY: u128 = 1_000_000_000;

/// GRUB's last commands before it starts a guest in `lane`.
pub fn of(lane: Lane) -> &'static [&'static str] {
    match lane.machine() {
        Machine::Bochs => TO_LOG,
        _ => TO_CONSOLE,
    }
}

/// Reads from the log of Bochs the ticks at GRUB's mark and at the kernel's first instructions. A tick is an
/// instruction.
pub fn in_log(log: &str) -> Result<(u64, u64)> {
    let grub = tick(log, GRUB_LINE, 0).context("GRUB's mark is not in the log of Bochs")?;
    let kernel = tick(log, KERNEL_LINE, grub).context("the kernel's start is not in the log of Bochs")?;
    Ok((grub, kernel))
}

/// Returns the tick of the first line that ends in `end` and is not before the tick `after`. Each line of the log
/// begins with the tick, a letter for its level, and a device.
fn tick(log: &str, end: &str, after: u64) -> Option<u64> {
    let lines = log.lines().filter(|line| line.trim_end().ends_with(end));
    let mut ticks = lines.filter_map(|line| line.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok());
    ticks.find(|tick| *tick >= after)
}

/// Instructions from GRUB's mark to the shell. `end` is the TSC at the shell, and `console` what was printed before it.
///
/// The timer wraps every 4.7 s, so it only gives the position within such a period. The number of whole periods follows
/// from the time in Linux' last message, since Linux' clock begins less than a period after GRUB's mark.
pub fn by_timer(console: &str, end: u64) -> Result<u64> {
    let begin = console.lines().filter_map(|line| line.trim().strip_prefix("timer ")).next_back();
    let begin = begin.context("GRUB did not print its mark")?.trim_start_matches("0x");
    let begin = u128::from(u64::from_str_radix(begin, 16).context("GRUB's mark is not a number")?);
    let time = |line: &str| line.strip_prefix('[')?.split_once(']')?.0.trim().parse::<f64>().ok();
    let last = console.lines().filter_map(time).next_back().context("Linux printed no message")?;
    let period = 1_u128 << TIMER_BITS;
    let end = u128::from(end) * TIMER_FREQUENCY / TSC_FREQUENCY;
    let part = (end % period + period - begin % period) % period;
    let at_most = (last * TIMER_FREQUENCY as f64) as u128 + period;
    let periods = at_most.saturating_sub(part) / period;
    let ticks = (part + periods * period) * TSC_FREQUENCY / TIMER_FREQUENCY;
    Ok(ticks as u64 / TICKS_PER_INSTRUCTION)
}

/// Instructions from the beginning of the kernel's clock, which is early, to the shell. They follow from the time that
/// the kernel prints before init's message.
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
    fn wraps_of_the_timer_are_counted() {
        let seconds = |mark: &str, last: &str, end: u64| {
            let console = format!("x\r\ntimer {mark}\r\n[    0.1] Linux\r\n[ {last}] Run /init\r\nhello");
            by_timer(&console, end).unwrap() as f64 * TICKS_PER_INSTRUCTION as f64 / 1e9
        };
        let close = |one: f64, other: f64| assert!((one - other).abs() < 1e-5, "{one} {other}");
        // GRUB's mark is at 1 s, and the shell at 3 s or 9 s.
        close(seconds("0x369e99", "1.9", 3_000_000_000), 2.0);
        close(seconds("0x369e99", "4.5", 9_000_000_000), 8.0);
        // GRUB's mark is at 4.5 s and the shell at 6 s. The timer wraps once between them.
        close(seconds("f5c9b0", "0.7", 6_000_000_000), 1.5);
        assert!(by_timer("[ 1.0] x", 1).is_err() && by_timer("timer 1", 1).is_err());
        assert!(by_timer("timer x\n[ 1.0] x", 1).is_err());
    }

    #[test]
    fn the_kernels_time_is_read_from_the_console() {
        assert_eq!(by_kernel("[    0.5] x\r\n[   12.000160] init: mark\r\n").unwrap(), 750_010_000);
        assert!(by_kernel("[ 1.000000] init: other").is_err() && by_kernel("1.0] init: mark").is_err());
    }
}
