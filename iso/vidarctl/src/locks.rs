//! Locking the kernel's read-only data, and the table of what has written to the kernel's code.

use std::fmt::Write;

use vidar_abi::Call;

use crate::affinity::on_each_cpu;
use crate::failure::Failure;
use crate::hypercall::{Answer, Request};
use crate::json::string;
use crate::numbers::grouped;
use crate::query::Vidar;
use crate::trace::symbols::Symbols;

/// The most rows that are asked for.
const MOST_ROWS: u64 = 1000;

/// On how many CPUs the lock holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Locked {
    held: u64,
    cpus: u64,
}

/// Locks the kernel's read-only data on all CPUs that are online.
pub fn lock<C: Fn(Request) -> Answer>(vidar: &Vidar<C>) -> Result<Locked, Failure> {
    let (answers, all) = on_each_cpu(|| vidar.ask_new(Call::Lock, 0));
    let mut last = Err(Failure::NoCpu);
    for answer in answers {
        let answer = answer?.ok_or(Failure::Malformed(Call::Lock))?;
        last = Ok(Locked { held: answer.rbx, cpus: answer.rcx });
    }
    all.and(last)
}

impl Locked {
    /// Formats the state for people.
    pub fn text(self) -> String {
        let Self { held, cpus } = self;
        let plural = if cpus == 1 { "" } else { "s" };
        let rest = if held == cpus { "" } else { "; the others hold it when they come online" };
        format!("the kernel's read-only data is locked on {held} of {cpus} CPU{plural}{rest}\n")
    }

    /// Formats the state as JSON.
    pub fn json(self) -> String {
        format!("{{\"locked_on\":{},\"cpus\":{}}}\n", self.held, self.cpus)
    }
}

/// The writes by one call chain.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Writes {
    /// The number of writes.
    count: u64,
    /// The address of the last one.
    last: u64,
    /// The address of the instruction and those of its callers, the innermost first.
    chain: Vec<u64>,
}

/// The table of writes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Table {
    rows: Vec<Writes>,
    lost: u64,
}

/// Reads the table, the call chains with the most writes first, and has each CPU watch all of the code again.
pub fn audit<C: Fn(Request) -> Answer>(vidar: &Vidar<C>) -> Result<Table, Failure> {
    let (answers, all) = on_each_cpu(|| vidar.ask_new(Call::Audit, 0));
    answers.into_iter().try_for_each(|answer| answer.map(drop))?;
    all?;
    let mut table = Table::default();
    for row in 0..MOST_ROWS {
        let Some(answer) = vidar.ask_new(Call::Audit, row)?.filter(|answer| answer.rbx > 0) else { break };
        table.lost = answer.rdx;
        let chain = answer.r8_to_r15.into_iter().take_while(|address| *address != 0).collect();
        table.rows.push(Writes { count: answer.rbx, last: answer.rcx, chain });
    }
    table.rows.sort_by_key(|row| std::cmp::Reverse(row.count));
    Ok(table)
}

impl Table {
    /// Formats the table for people.
    pub fn text(&self, symbols: &Symbols) -> String {
        let mut text = "    writes  last in                         by\n".to_owned();
        for Writes { count, last, chain } in &self.rows {
            let chain: Vec<_> = chain.iter().map(|address| symbols.place(*address).function()).collect();
            let (count, last) = (grouped(*count), symbols.place(*last).function());
            let _ = writeln!(text, "{count:>10}  {last:<30}  {}", chain.join(" < "));
        }
        if self.lost > 0 {
            let _ = writeln!(text, "{:>10}  by more call chains than Vidar has rows for", grouped(self.lost));
        }
        text
    }

    /// Formats the table as JSON.
    pub fn json(&self, symbols: &Symbols) -> String {
        let row = |Writes { count, last, chain }: &Writes| {
            let chain: Vec<_> =
                chain.iter().map(|address| string(&symbols.place(*address).function())).collect();
            let last = string(&symbols.place(*last).function());
            format!("{{\"writes\":{count},\"last_in\":{last},\"by\":[{}]}}", chain.join(","))
        };
        let rows: Vec<_> = self.rows.iter().map(row).collect();
        format!("{{\"rows\":[{}],\"without_a_row\":{}}}\n", rows.join(","), self.lost)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lock_says_on_how_many_cpus_it_holds() {
        let all = Locked { held: 1, cpus: 1 };
        assert_eq!(all.text(), "the kernel's read-only data is locked on 1 of 1 CPU\n");
        let some = Locked { held: 1, cpus: 2 };
        assert_eq!(
            some.text(),
            "the kernel's read-only data is locked on 1 of 2 CPUs; the others hold it when they come online\n"
        );
        assert_eq!(some.json(), "{\"locked_on\":1,\"cpus\":2}\n");
    }

    #[test]
    fn the_table_names_functions() {
        let symbols = Symbols::parse(
            "ffffffff81000000 T memcpy\nffffffff81000100 t __text_poke\nffffffff81000200 T schedule\n",
        );
        let chain = vec![0xffff_ffff_8100_0004, 0xffff_ffff_8100_0123];
        let table = Table { rows: vec![Writes { count: 2424, last: 0xffff_ffff_8100_0205, chain }], lost: 3 };
        assert_eq!(
            table.text(&symbols),
            "    writes  last in                         by\n     2,424  schedule                        memcpy < __text_poke\n\
             \u{20}        3  by more call chains than Vidar has rows for\n"
        );
        assert_eq!(
            table.json(&symbols),
            "{\"rows\":[{\"writes\":2424,\"last_in\":\"schedule\",\"by\":[\"memcpy\",\"__text_poke\"]}],\"without_a_row\":3}\n"
        );
    }
}
