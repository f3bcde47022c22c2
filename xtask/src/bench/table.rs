//! The table of measurements, in Markdown.

use std::fmt;

/// The verdict on a measurement that exceeds its limit.
const MISSED: &str = "MISSED";

/// One measurement, as a row of the table.
#[derive(Debug, Clone)]
pub struct Row {
    cells: [String; 6],
}

impl Row {
    /// Returns a number that must not exceed `must`, and should not exceed `aim`.
    pub fn at_most(what: String, bare: &str, number: f64, shown: &str, must: f64, aim: f64) -> Self {
        let verdict = if number <= aim {
            "as aimed for"
        } else if number <= must {
            "within the limit"
        } else {
            MISSED
        };
        Self { cells: [what, bare.into(), shown.into(), must.to_string(), aim.to_string(), verdict.into()] }
    }

    /// Returns a statement that must hold.
    pub fn yes_or_no(what: String, bare: &str, shown: &str, must: &str, holds: bool) -> Self {
        let verdict = if holds { "as aimed for" } else { MISSED };
        Self { cells: [what, bare.into(), shown.into(), must.into(), must.into(), verdict.into()] }
    }

    /// Returns a number without a goal.
    pub fn plain(what: String, shown: &str) -> Self {
        Self { cells: [what, String::new(), shown.into(), String::new(), String::new(), String::new()] }
    }
}

/// The table, row by row.
#[derive(Debug, Clone, Default)]
pub struct Table {
    rows: Vec<Row>,
}

impl Table {
    /// Adds a row.
    pub fn add(&mut self, row: Row) {
        self.rows.push(row);
    }

    /// Returns true if no row exceeds its limit.
    pub fn holds(&self) -> bool {
        self.rows.iter().all(|Row { cells: [.., verdict] }| verdict != MISSED)
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| | bare | Vidar | must reach | aims for | |\n|---|---|---|---|---|---|")?;
        self.rows.iter().try_for_each(|row| writeln!(f, "| {} |", row.cells.join(" | ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verdict_follows_from_limit_and_aim() {
        for (number, verdict) in
            [(80.0, "as aimed for"), (100.0, "as aimed for"), (120.0, "within the limit"), (151.0, "MISSED")]
        {
            let row = Row::at_most("CPUID".into(), "5", number, "x", 150.0, 100.0);
            assert_eq!(row.cells[5], verdict);
        }
    }

    #[test]
    fn one_missed_limit_fails_the_table() {
        let number = |number| Row::at_most("CPUID".into(), "5", number, "x", 150.0, 100.0);
        let fact = |holds| Row::yes_or_no("port".into(), "4", "4", "no exit", holds);
        let of = |rows: &[Row]| Table { rows: rows.to_vec() }.holds();
        assert!(of(&[number(80.0), number(120.0), fact(true), Row::plain("size".into(), "7")]));
        assert!(!of(&[number(80.0), number(151.0)]));
        assert!(!of(&[number(f64::NAN)]));
        assert!(!of(&[fact(false), fact(true)]));
    }

    #[test]
    fn a_row_is_a_line() {
        let mut table = Table::default();
        table.add(Row::plain("size".into(), "7"));
        assert_eq!(table.to_string().lines().last(), Some("| size |  | 7 |  |  |  |"));
    }
}
