//! Tells the exits of this program from those that it was asked about: its hypercalls are exits as well.

use std::fs;
use std::ops::Range;

/// The addresses of this program's code.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Own(Vec<Range<u64>>);

impl Own {
    /// Returns the code of the program that runs this.
    pub fn of_this_program() -> Self {
        Self::parse(&fs::read_to_string("/proc/self/maps").unwrap_or_default())
    }

    /// Returns the executable mappings of files in a list as /proc/self/maps has it.
    fn parse(maps: &str) -> Self {
        Self(maps.lines().filter_map(mapping).collect())
    }

    /// Returns a program whose code is the instruction at this address.
    #[cfg(test)]
    pub fn at(rip: u64) -> Self {
        Self(std::iter::once(rip..rip + 1).collect())
    }

    /// Returns true if the instruction at this address is this program's. Linux places each program at random, so that
    /// another one is rarely there.
    pub fn contains(&self, rip: u64) -> bool {
        self.0.iter().any(|range| range.contains(&rip))
    }
}

/// Returns the addresses of a line of the list, if they hold code of a file.
fn mapping(line: &str) -> Option<Range<u64>> {
    let mut words = line.split_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    let is_code = words.next()?.as_bytes().get(2) == Some(&b'x');
    let is_file = words.nth(3)?.starts_with('/');
    let hex = |text| u64::from_str_radix(text, 16).ok();
    let range = hex(start)?..hex(end)?;
    (is_code && is_file).then_some(range)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn executable_mappings_of_files_are_the_programs_own() {
        let own = Own::parse(
            "7f0000001000-7f0000005000 r--p 00000000 08:01 17  /bin/vidarctl\n\
             7f0000005000-7f0000009000 r-xp 00004000 08:01 17  /bin/vidarctl\n\
             7ffd00000000-7ffd00001000 r-xp 00000000 00:00 0   [vdso]\n\
             7ffe00000000-7ffe00001000 rwxp 00000000 00:00 0\n",
        );
        assert_eq!(own, Own(std::iter::once(0x7f00_0000_5000..0x7f00_0000_9000).collect()));
        assert!(own.contains(0x7f00_0000_5000) && !own.contains(0x7f00_0000_9000));
        assert!(!own.contains(0x7f00_0000_1000) && !Own::default().contains(0));
    }

    #[test]
    fn this_test_is_its_own() {
        let own = Own::of_this_program();
        assert!(own.contains(this_test_is_its_own as *const () as u64));
        assert!(!own.contains(0xffff_ffff_8100_0000));
    }
}
