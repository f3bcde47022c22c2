//! The kinds of exits that an answer is about: `vidarctl trace --only cpuid,wrmsr`.

use vidar_abi::ExitKind;

use super::Exit;

/// Some kinds of exits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kinds([bool; ExitKind::COUNT]);

impl Kinds {
    /// All kinds.
    pub const ALL: Self = Self([true; ExitKind::COUNT]);

    /// Parses names of kinds, with commas between them. An error says what is needed.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut kinds = Self([false; ExitKind::COUNT]);
        for word in text.split(',') {
            let kind = ExitKind::ALL.iter().find(|kind| kind.name() == word);
            let kind = kind.ok_or_else(|| format!("one or more of {}, and got {word:?}", names()))?;
            kinds.0[*kind as usize] = true;
        }
        Ok(kinds)
    }

    /// Returns true if the exit is of one of these kinds.
    pub fn contain(&self, exit: &Exit) -> bool {
        self.0[exit.record.kind as usize]
    }
}

/// Returns the names of all kinds, with commas between them.
pub fn names() -> String {
    ExitKind::ALL.iter().map(|kind| kind.name()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use vidar_abi::Record;

    use super::*;

    #[test]
    fn the_kinds_that_are_named_are_meant_and_no_others() {
        let meant = |text: &str| {
            let kinds = Kinds::parse(text).unwrap();
            let exit = |kind| Exit { cpu: 0, record: Record { tsc: 0, rip: 0, ticks: 0, kind, detail: 0 } };
            let meant = ExitKind::ALL.iter().filter(|kind| kinds.contain(&exit(**kind)));
            meant.map(|kind| kind.name()).collect::<Vec<_>>()
        };
        assert_eq!(meant("wrmsr"), ["wrmsr"]);
        assert_eq!(meant("wrmsr,cpuid,wrmsr"), ["cpuid", "wrmsr"]);
        let all = names().replace(' ', "");
        assert_eq!(Kinds::parse(&all), Ok(Kinds::ALL));
        for wrong in ["", "cpuid,", "CPUID", "cpuid wrmsr"] {
            assert!(Kinds::parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
