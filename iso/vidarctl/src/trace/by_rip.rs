//! Which functions exit most: `vidarctl exits --by-rip`.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use vidar_abi::ExitKind;

use super::Exit;
use super::clock::Clock;
use super::symbols::Symbols;
use crate::json::string;
use crate::numbers::grouped;

/// The exits of one kind from one function.
#[derive(Debug, Clone, PartialEq)]
struct Row {
    function: String,
    kind: ExitKind,
    exits: u64,
    microseconds: f64,
}

/// The exits of a trace by function, the most frequent first.
#[derive(Debug, Clone, PartialEq)]
pub struct ByFunction {
    rows: Vec<Row>,
    cpus: u64,
}

impl ByFunction {
    /// Counts the exits of so many CPUs.
    pub fn new(exits: &[Exit], cpus: u64, clock: Clock, symbols: &Symbols) -> Self {
        let mut counted: BTreeMap<(String, u8), Row> = BTreeMap::new();
        for Exit { record, .. } in exits {
            let (function, kind) = (symbols.place(record.rip).function(), record.kind);
            let row = counted.entry((function.clone(), kind as u8));
            let row = row.or_insert_with(|| Row { function, kind, exits: 0, microseconds: 0.0 });
            row.exits += 1;
            row.microseconds += clock.microseconds(record.ticks.into());
        }
        let mut rows: Vec<_> = counted.into_values().collect();
        rows.sort_by_key(|row| Reverse(row.exits));
        Self { rows, cpus }
    }

    fn total(&self) -> u64 {
        self.rows.iter().map(|row| row.exits).sum()
    }

    /// Formats the counts for people.
    pub fn text(&self) -> String {
        let plural = if self.cpus == 1 { "" } else { "s" };
        let head = format!(
            "the last {} exits of {} CPU{plural}:\n{:>14}  {:>12}  {:<28}where\n",
            grouped(self.total()),
            self.cpus,
            "exits",
            "us in Vidar",
            "kind"
        );
        let line = |Row { function, kind, exits, microseconds }: &Row| {
            format!("{:>14}  {microseconds:>12.3}  {:<28}{function}\n", grouped(*exits), kind.name())
        };
        head + &self.rows.iter().map(line).collect::<String>()
    }

    /// Formats the counts as JSON.
    pub fn json(&self) -> String {
        let row = |Row { function, kind, exits, microseconds }: &Row| {
            format!(
                "{{\"function\":{},\"kind\":{},\"exits\":{exits},\"microseconds\":{microseconds:.3}}}",
                string(function),
                string(kind.name())
            )
        };
        let rows: Vec<_> = self.rows.iter().map(row).collect();
        format!("{{\"total\":{},\"cpus\":{},\"functions\":[{}]}}\n", self.total(), self.cpus, rows.join(","))
    }
}

#[cfg(test)]
mod tests {
    use vidar_abi::Record;

    use super::*;

    #[test]
    fn exits_of_a_function_are_counted_together_by_kind() {
        let symbols = Symbols::parse("ffffffff81000000 T native_cpuid\nffffffff81000100 T write_msr\n");
        let exit = |rip, kind, ticks| Exit { cpu: 0, record: Record { tsc: 0, rip, ticks, kind, detail: 0 } };
        let exits = [
            exit(0xffff_ffff_8100_0104, ExitKind::Wrmsr, 500),
            exit(0xffff_ffff_8100_0004, ExitKind::Cpuid, 100),
            exit(0xffff_ffff_8100_0008, ExitKind::Cpuid, 100),
            exit(0x7f00_0000_0000, ExitKind::Cpuid, 100),
        ];
        let counted = ByFunction::new(&exits, 2, Clock::new(100.0), &symbols);
        assert_eq!(
            counted.text(),
            "the last 4 exits of 2 CPUs:\n         exits   us in Vidar  kind                        where\n\
             \x20            2         2.000  cpuid                       native_cpuid\n\
             \x20            1         1.000  cpuid                       user program\n\
             \x20            1         5.000  wrmsr                       write_msr\n"
        );
        assert_eq!(
            counted.json(),
            "{\"total\":4,\"cpus\":2,\"functions\":[\
             {\"function\":\"native_cpuid\",\"kind\":\"cpuid\",\"exits\":2,\"microseconds\":2.000},\
             {\"function\":\"user program\",\"kind\":\"cpuid\",\"exits\":1,\"microseconds\":1.000},\
             {\"function\":\"write_msr\",\"kind\":\"wrmsr\",\"exits\":1,\"microseconds\":5.000}]}\n"
        );
        assert!(
            ByFunction::new(&[], 1, Clock::new(1.0), &symbols)
                .text()
                .starts_with("the last 0 exits of 1 CPU:\n")
        );
    }
}
