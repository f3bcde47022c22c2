//! Exits by kind: `vidarctl exits`.

use std::cmp::Reverse;
use std::time::Duration;

use vidar_abi::ExitKind;

use crate::json::string;
use crate::numbers::grouped;

/// The number of exits of each kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    by_kind: [u64; ExitKind::COUNT],
    /// The number of hypercalls that were made to get these counts. Each of them is an exit, too.
    pub calls: u64,
}

impl Counts {
    /// Adds exits of one kind.
    pub fn add(&mut self, kind: ExitKind, count: u64) {
        self.by_kind[kind as usize] += count;
    }

    /// Returns the number of exits of one kind.
    pub fn of(&self, kind: ExitKind) -> u64 {
        self.by_kind[kind as usize]
    }

    /// Returns the number of exits of all kinds.
    pub fn total(&self) -> u64 {
        self.by_kind.iter().sum()
    }

    /// Formats the counts for people: the most frequent kind comes first, and kinds that did not occur are left out.
    pub fn text(&self) -> String {
        self.table(|count| format!("{:>14}", grouped(count)))
    }

    /// Formats the counts as JSON: every kind is there, in the order of the ABI.
    pub fn json(&self) -> String {
        format!("{{\"total\":{},\"kinds\":{}}}\n", self.total(), self.kinds())
    }

    fn table(&self, number: impl Fn(u64) -> String) -> String {
        let mut kinds: Vec<_> = ExitKind::ALL.iter().filter(|kind| self.of(**kind) > 0).collect();
        kinds.sort_by_key(|kind| Reverse(self.of(**kind)));
        let mut text: String =
            kinds.into_iter().map(|kind| format!("{}  {}\n", number(self.of(*kind)), kind.name())).collect();
        text += &format!("{}  total\n", number(self.total()));
        text
    }

    fn kinds(&self) -> String {
        let kinds: Vec<_> =
            ExitKind::ALL.iter().map(|kind| format!("{}:{}", string(kind.name()), self.of(*kind))).collect();
        format!("{{{}}}", kinds.join(","))
    }
}

/// Formats the counts of several CPUs for people, with a column for each CPU. The kind that is the most frequent on all
/// CPUs together comes first, and kinds that did not occur are left out.
pub fn text_by_cpu(cpus: &[Counts]) -> String {
    let of_all = |kind: &ExitKind| cpus.iter().map(|counts| counts.of(*kind)).sum::<u64>();
    let mut kinds: Vec<_> = ExitKind::ALL.iter().filter(|kind| of_all(kind) > 0).collect();
    kinds.sort_by_key(|kind| Reverse(of_all(kind)));
    let line = |cells: Vec<String>, name: &str| {
        cells.into_iter().map(|cell| format!("{cell:>12}")).collect::<String>() + &format!("  {name}\n")
    };
    let mut text =
        line((0..cpus.len()).map(|cpu| format!("CPU {cpu}")).collect(), "").trim_end().to_owned() + "\n";
    for kind in kinds {
        text += &line(cpus.iter().map(|counts| grouped(counts.of(*kind))).collect(), kind.name());
    }
    text + &line(cpus.iter().map(|counts| grouped(counts.total())).collect(), "total")
}

/// Formats the counts of several CPUs as JSON.
pub fn json_by_cpu(cpus: &[Counts]) -> String {
    let cpus: Vec<_> = cpus
        .iter()
        .map(|counts| format!("{{\"total\":{},\"kinds\":{}}}", counts.total(), counts.kinds()))
        .collect();
    format!("{{\"cpus\":[{}]}}\n", cpus.join(","))
}

/// The exits during some time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interval {
    counts: Counts,
    seconds: f64,
}

impl Interval {
    /// Returns the exits between two counts that were taken `time` apart. The hypercalls that took the second count
    /// are subtracted, because the first count does not contain them and the second does.
    pub fn between(before: &Counts, after: &Counts, time: Duration) -> Self {
        let mut counts = Counts::default();
        for kind in ExitKind::ALL {
            let own = if *kind == ExitKind::Hypercall { after.calls } else { 0 };
            counts.add(*kind, after.of(*kind).saturating_sub(before.of(*kind)).saturating_sub(own));
        }
        Self { counts, seconds: time.as_secs_f64() }
    }

    /// Formats the exits and their frequency for people.
    pub fn text(&self) -> String {
        let table =
            self.counts.table(|count| format!("{:>14} {:>10.1}/s", grouped(count), self.per_second(count)));
        format!("exits in {} s:\n{table}", self.seconds)
    }

    /// Formats the exits and their frequency as JSON.
    pub fn json(&self) -> String {
        let total = self.counts.total();
        format!(
            "{{\"seconds\":{},\"total\":{total},\"per_second\":{},\"kinds\":{}}}\n",
            self.seconds,
            self.per_second(total),
            self.counts.kinds()
        )
    }

    fn per_second(&self, count: u64) -> f64 {
        count as f64 / self.seconds
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(cpuid: u64, wrmsr: u64, hypercall: u64) -> Counts {
        let mut counts = Counts { calls: 16, ..Counts::default() };
        counts.add(ExitKind::Cpuid, cpuid);
        counts.add(ExitKind::Wrmsr, wrmsr);
        counts.add(ExitKind::Hypercall, hypercall);
        counts
    }

    #[test]
    fn the_most_frequent_kind_comes_first_and_unused_kinds_are_left_out() {
        assert_eq!(
            counts(7, 1_234_567, 0).text(),
            "     1,234,567  wrmsr\n             7  cpuid\n     1,234,574  total\n"
        );
        assert_eq!(Counts::default().text(), "             0  total\n");
    }

    #[test]
    fn json_has_every_kind() {
        let json = counts(7, 8, 9).json();
        assert!(json.starts_with("{\"total\":24,\"kinds\":{\"cpuid\":7,\"rdmsr\":0,\"wrmsr\":8,"), "{json}");
        assert!(json.ends_with("\"other\":0}}\n"), "{json}");
    }

    #[test]
    fn each_cpu_has_a_column() {
        let cpus = [counts(7, 0, 0), counts(1_234_567, 3, 0)];
        assert_eq!(
            text_by_cpu(&cpus),
            "       CPU 0       CPU 1\n           7   1,234,567  cpuid\n           0           3  wrmsr\n           7   \
             1,234,570  total\n"
        );
        let json = json_by_cpu(&cpus);
        assert!(json.starts_with("{\"cpus\":[{\"total\":7,\"kinds\":{\"cpuid\":7,"), "{json}");
        assert!(json.contains("},{\"total\":1234570,"), "{json}");
    }

    #[test]
    fn an_interval_counts_neither_earlier_exits_nor_its_own_hypercalls() {
        let idle = Interval::between(&counts(5, 10, 100), &counts(5, 13, 116), Duration::from_secs(2));
        assert_eq!(
            idle.text(),
            "exits in 2 s:\n             3        1.5/s  wrmsr\n             3        1.5/s  total\n"
        );
        assert!(
            idle.json().starts_with("{\"seconds\":2,\"total\":3,\"per_second\":1.5,\"kinds\":{\"cpuid\":0,")
        );
        let silent = Interval::between(&counts(5, 10, 100), &counts(5, 10, 116), Duration::from_millis(500));
        assert_eq!(silent.text(), "exits in 0.5 s:\n             0        0.0/s  total\n");
    }
}
