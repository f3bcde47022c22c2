//! The trace of the last exits: `vidarctl trace`, and `vidarctl exits --by-rip`.

pub mod by_rip;
pub mod clock;
pub mod events;
pub mod kinds;
pub mod own;
pub mod reader;
pub mod symbols;

use vidar_abi::{Record, Subject};

use self::clock::Clock;
use self::symbols::Symbols;

/// An exit of the trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    /// The index of its CPU.
    pub cpu: u64,
    /// What was recorded.
    pub record: Record,
}

impl Exit {
    /// Returns the kind of the exit, and what exited, in words.
    pub fn what(&self) -> String {
        let kind = self.record.kind.name();
        match self.record.subject() {
            Subject::None => kind.to_owned(),
            subject => format!("{kind} {subject}"),
        }
    }
}

/// The first line of the table.
pub const HEADER: &str = "      seconds  CPU  us in Vidar  what                          where\n";

/// Formats an exit for people, as a line of a table: when it was, on which CPU, how long Vidar took, what it was, and
/// where the guest's code is that exited. The time is that since the time-stamp counter was 0.
pub fn line(exit: &Exit, clock: Clock, symbols: &Symbols) -> String {
    let Exit { cpu, record } = exit;
    let seconds = clock.microseconds(record.tsc) / 1e6;
    let took = clock.microseconds(record.ticks.into());
    let line =
        format!("{seconds:>13.6} {cpu:>4} {took:>12.3}  {:<28}  {}", exit.what(), symbols.place(record.rip));
    line.trim_end().to_owned() + "\n"
}

#[cfg(test)]
mod tests {
    use vidar_abi::ExitKind;

    use super::*;

    #[test]
    fn an_exit_is_a_line_with_time_cpu_duration_kind_and_place() {
        let symbols = Symbols::parse("ffffffff81000000 T native_cpuid\nffffffff81000100 T other\n");
        let clock = Clock::new(1000.0);
        let record = Record {
            tsc: 12_345_678_900,
            rip: 0xffff_ffff_8100_0012,
            ticks: 1_500,
            kind: ExitKind::Cpuid,
            detail: 4,
        };
        let exit = Exit { cpu: 1, record };
        assert_eq!(
            line(&exit, clock, &symbols),
            "    12.345679    1        1.500  cpuid leaf 0x4                native_cpuid+0x12\n"
        );
        let init = Exit { record: Record { kind: ExitKind::Init, ..record }, ..exit };
        assert_eq!(init.what(), "init");
        let ends = |text: &str| text.split("  ").map(str::len).sum::<usize>();
        assert!(ends(HEADER) > 0 && HEADER.find("where") == line(&exit, clock, &symbols).find("native"));
    }
}
