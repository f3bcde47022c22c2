//! Rules that a manual gives for a state, as tables. [`broken`] finds those that a state breaks, with the values that
//! break them: what a rule reads is recorded while it is asked.

use core::cell::Cell;
use core::fmt;

/// When the rules for entering the guest are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// Before the guest is entered.
    BeforeEntry,
    /// After the CPU has refused to enter it.
    AfterFailure,
}

/// What a table of rules is about.
pub trait Subject: 'static {
    /// The state that the rules judge.
    type State<'a>: Asked;
}

/// A state that records what is read of it.
pub trait Asked {
    /// Returns the record of what has been read.
    fn record(&self) -> &Record;

    /// Returns the name of a value that the record holds under `key`.
    fn name(key: u32) -> &'static str;
}

/// Rules that follow each other. The macro `rules` makes them from a table.
pub struct Rules<S: Subject> {
    /// A line for each rule: its number, which is unique among the rules of an extension, and the rule as a sentence.
    pub lines: &'static str,
    /// Judges a state by one rule after the other, and passes on whether the state keeps it.
    pub judge: Judge<S>,
}

/// A function that judges a state by several rules.
type Judge<S> = fn(&<S as Subject>::State<'_>, &mut dyn FnMut(bool));

/// Makes [`Rules`] from the name of the type of the state and a tuple for each rule: its number, the rule as a
/// sentence, and a closure that returns true if the state keeps it. The bodies of the closures become one function,
/// which is smaller than one for each, so they cannot return early.
macro_rules! rules {
    ($state:ident, $(($id:literal, $says:literal, |$s:ident| $holds:expr)),* $(,)?) => {{
        #[cold]
        fn judge(state: &$state<'_>, tell: &mut dyn FnMut(bool)) {
            $({
                let $s = state;
                tell($holds);
            })*
        }
        $crate::vmm::rules::Rules { lines: concat!($($id, " ", $says, "\n"),*), judge }
    }};
}

pub(crate) use rules;

/// The rules of one section of a manual.
pub struct Section<S: Subject> {
    /// The manual, with its volume.
    pub manual: &'static str,
    /// The number of the section, which differs between editions.
    pub number: &'static str,
    /// The title of the section.
    pub title: &'static str,
    /// The rules.
    pub rules: Rules<S>,
}

impl<S: Subject> Section<S> {
    /// Returns the number and the sentence of each rule.
    pub fn rules(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        self.rules.lines.lines().map(split)
    }
}

/// Splits the line of a rule into its number and its sentence.
fn split(line: &'static str) -> (&'static str, &'static str) {
    line.split_once(' ').unwrap_or((line, ""))
}

/// Asks the rules of `sections` about `state`, and calls `found` with each rule that the state breaks.
pub fn broken<S: Subject>(sections: &[Section<S>], state: &S::State<'_>, found: &mut dyn FnMut(&Broken<'_>)) {
    for Section { manual, number, title, rules } in sections {
        let mut report = Report {
            lines: rules.lines,
            judged: 0,
            section: (manual, number, title),
            record: state.record(),
            name: <S::State<'_> as Asked>::name,
            found,
        };
        report.record.forget();
        (rules.judge)(state, &mut |holds| report.verdict(holds));
    }
}

/// The report on the rules of a section.
struct Report<'a, 'b> {
    /// The lines of the rules.
    lines: &'static str,
    /// The number of rules whose verdicts have come.
    judged: usize,
    section: (&'static str, &'static str, &'static str),
    record: &'a Record,
    name: fn(u32) -> &'static str,
    found: &'b mut dyn FnMut(&Broken<'_>),
}

impl Report<'_, '_> {
    /// Takes the verdict on the next rule. The text is searched only for a rule that is broken: it is ten kilobytes
    /// long.
    #[cold]
    #[inline(never)] // both extensions have rules
    fn verdict(&mut self, holds: bool) {
        let line = self.judged;
        self.judged += 1;
        if !holds {
            let (id, says) = split(self.lines.lines().nth(line).unwrap_or_default());
            let Self { section, record, name, .. } = *self;
            (self.found)(&Broken { id, says, section, record, name });
        }
        self.record.forget();
    }
}

/// The most values that a record holds. No rule reads more of one thing that it judges.
const VALUES: usize = 8;

/// The last values that were read of a state, each under its key.
#[derive(Debug, Default)]
pub struct Record {
    values: [Cell<(u32, u64)>; VALUES],
    count: Cell<usize>,
}

impl Record {
    /// Adds `value` under `key`, unless the record has it already or is full.
    #[cold]
    #[inline(never)] // every rule reads
    pub fn add(&self, key: u32, value: u64) {
        let count = self.count.get();
        if count < VALUES && self.iter().all(|known| known != (key, value)) {
            self.values[count].set((key, value));
            self.count.set(count + 1);
        }
    }

    /// Empties the record. A rule that judges several things alike calls it before each of them.
    pub fn forget(&self) {
        self.count.set(0);
    }

    /// Returns the keys and values in the order in which they were read.
    pub fn iter(&self) -> impl Iterator<Item = (u32, u64)> {
        self.values.iter().take(self.count.get()).map(Cell::get)
    }
}

/// A rule that a state breaks. As text it names the rule, its place in the manual, and the values that break it.
#[derive(Debug)]
pub struct Broken<'a> {
    /// The number of the rule.
    pub id: &'static str,
    says: &'static str,
    section: (&'static str, &'static str, &'static str),
    record: &'a Record,
    name: fn(u32) -> &'static str,
}

impl fmt::Display for Broken<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, says, section: (manual, number, title), record, name } = self;
        write!(f, "rule {id} is broken: {says}\n  {manual}, {number} \"{title}\"\n ")?;
        record.iter().try_for_each(|(key, value)| write!(f, " {} {value:#x}", name(key)))
    }
}

#[cfg(test)]
mod tests {
    use core::marker::PhantomData;

    use super::*;

    struct Numbers<'a>([u64; 3], Record, PhantomData<&'a ()>);

    impl Numbers<'_> {
        fn get(&self, index: u32) -> u64 {
            let value = self.0[index as usize];
            self.1.add(index, value);
            value
        }
    }

    impl Asked for Numbers<'_> {
        fn record(&self) -> &Record {
            &self.1
        }
        fn name(key: u32) -> &'static str {
            ["one", "two", "three"][key as usize]
        }
    }

    struct Kind;

    impl Subject for Kind {
        type State<'a> = Numbers<'a>;
    }

    const SECTIONS: &[Section<Kind>] = &[Section {
        manual: "The Manual",
        number: "1.2",
        title: "Numbers",
        rules: rules![
            Numbers,
            ("N1", "The first exceeds the second.", |n| n.get(0) > n.get(1)),
            ("N2", "The third is 0.", |n| n.get(2) == 0),
        ],
    }];

    fn found(numbers: [u64; 3]) -> Vec<String> {
        let mut texts = Vec::new();
        broken(SECTIONS, &Numbers(numbers, Record::default(), PhantomData), &mut |broken| {
            texts.push(broken.to_string());
        });
        texts
    }

    #[test]
    fn a_broken_rule_is_named_with_the_values_that_it_has_read() {
        assert_eq!(found([2, 1, 0]), [""; 0]);
        let first = "rule N1 is broken: The first exceeds the second.\n  The Manual, 1.2 \"Numbers\"\n  one 0x1 two 0x2";
        assert_eq!(found([1, 2, 0]), [first]);
        assert_eq!(found([1, 2, 3]).len(), 2, "the second rule is asked as well");
    }

    #[test]
    fn a_record_holds_each_value_once_and_drops_those_that_do_not_fit() {
        let record = Record::default();
        for key in [1, 1, 2, 1] {
            record.add(key, 7);
        }
        assert_eq!(record.iter().collect::<Vec<_>>(), [(1, 7), (2, 7)]);
        (0..100).for_each(|key| record.add(key, 0));
        assert_eq!(record.iter().count(), VALUES);
        record.forget();
        assert_eq!(record.iter().count(), 0);
    }
}
