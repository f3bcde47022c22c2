//! Exits per second, by kind and CPU: `vidarctl top`.

use std::time::Duration;

use vidar_abi::ExitKind;

use crate::exits::Counts;
use crate::json::string;

/// The exits of each CPU in some time.
#[derive(Debug, Clone, PartialEq)]
pub struct Rates {
    seconds: f64,
    /// The exits in this time.
    cpus: Vec<Counts>,
    /// The kinds of which there has been an exit since boot.
    kinds: Vec<ExitKind>,
}

impl Rates {
    /// Returns the exits between two counts that were taken `time` apart. The hypercalls that took the second count
    /// were made on the CPU `here`. They are subtracted, because the first count does not contain them.
    pub fn between(before: &[Counts], after: &[Counts], here: u64, time: Duration) -> Self {
        let calls: u64 = after.iter().map(|counts| counts.calls).sum();
        let cpu = |(index, (before, after)): (usize, (&Counts, &Counts))| {
            let mut counts = Counts::default();
            for kind in ExitKind::ALL {
                let is_own = *kind == ExitKind::Hypercall && index as u64 == here;
                let own = if is_own { calls + 1 } else { 0 }; // and the call for the number of CPUs
                counts.add(*kind, after.of(*kind).saturating_sub(before.of(*kind)).saturating_sub(own));
            }
            counts
        };
        let happened = |kind: &&ExitKind| after.iter().any(|counts| counts.of(**kind) > 0);
        Self {
            seconds: time.as_secs_f64(),
            cpus: before.iter().zip(after).enumerate().map(cpu).collect(),
            kinds: ExitKind::ALL.iter().filter(happened).copied().collect(),
        }
    }

    fn per_second(&self, count: u64) -> f64 {
        count as f64 / self.seconds
    }

    /// Formats the rates for people, with a column for each CPU and one for all. A kind keeps its line.
    pub fn text(&self) -> String {
        let line = |numbers: &mut dyn Iterator<Item = u64>, name: &str| {
            let numbers: Vec<_> = numbers.collect();
            let sum = numbers.iter().sum();
            let cells = numbers.into_iter().chain([sum]);
            let cells: String = cells.map(|count| format!("{:>12.1}", self.per_second(count))).collect();
            format!("{cells}  {name}\n")
        };
        let mut text: String =
            (0..self.cpus.len()).map(|cpu| format!("{:>12}", format!("CPU {cpu}"))).collect();
        text += &format!("{:>12}  exits per second\n", "all");
        for kind in &self.kinds {
            text += &line(&mut self.cpus.iter().map(|counts| counts.of(*kind)), kind.name());
        }
        text + &line(&mut self.cpus.iter().map(Counts::total), "total")
    }

    /// Formats the rates as JSON, with every kind.
    pub fn json(&self) -> String {
        let cpu = |counts: &Counts| {
            let kind =
                |kind: &ExitKind| format!("{}:{:.3}", string(kind.name()), self.per_second(counts.of(*kind)));
            let kinds: Vec<_> = ExitKind::ALL.iter().map(kind).collect();
            let total = self.per_second(counts.total());
            format!("{{\"total\":{total:.3},\"kinds\":{{{}}}}}", kinds.join(","))
        };
        let cpus: Vec<_> = self.cpus.iter().map(cpu).collect();
        format!("{{\"seconds\":{:.3},\"per_second\":[{}]}}\n", self.seconds, cpus.join(","))
    }
}

/// Returns the text as a picture for a terminal of this width, which replaces the one before.
pub fn screen(text: &str, columns: usize) -> String {
    // To the first column of the first line; for each line: erase to its end; at last: erase what is below.
    let cut = |line: &str| line.chars().take(columns).collect::<String>() + "\x1b[K\r\n";
    format!("\x1b[H{}\x1b[J", text.lines().map(cut).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(cpuid: u64, hypercall: u64, calls: u64) -> Counts {
        let mut counts = Counts::default();
        counts.calls = calls;
        counts.add(ExitKind::Cpuid, cpuid);
        counts.add(ExitKind::Hypercall, hypercall);
        counts
    }

    #[test]
    fn the_calls_for_the_counts_are_left_out_on_the_cpu_that_makes_them() {
        let before = [counts(10, 5, 15), counts(20, 100, 15)];
        let after = [counts(11, 6, 15), counts(25, 100 + 30 + 1 + 4, 15)];
        let rates = Rates::between(&before, &after, 1, Duration::from_secs(2));
        assert_eq!(
            rates.text(),
            "       CPU 0       CPU 1         all  exits per second\n\
             \x20        0.5         2.5         3.0  cpuid\n\
             \x20        0.5         2.0         2.5  hypercall\n\
             \x20        1.0         4.5         5.5  total\n"
        );
        let json = rates.json();
        assert!(
            json.starts_with(
                "{\"seconds\":2.000,\"per_second\":[{\"total\":1.000,\"kinds\":{\"cpuid\":0.500,"
            ),
            "{json}"
        );
        assert!(json.ends_with("\"other\":0.000}}]}\n"), "{json}");
    }

    #[test]
    fn a_picture_replaces_the_one_before_and_fits_the_width() {
        assert_eq!(screen("abc\ndefgh\n", 4), "\x1b[Habc\x1b[K\r\ndefg\x1b[K\r\n\x1b[J");
    }
}
