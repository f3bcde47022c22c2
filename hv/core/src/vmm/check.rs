//! Asks the rules for entering the guest: after an entry that failed, and with `check=on` before each entry, where each
//! broken rule is reported once.

use core::fmt;

use super::rules::Moment;
use super::vcpu::Vcpu;

/// Explains an entry of `vcpu` that failed with `code`: calls `say` with each rule that the state has broken, or with a
/// sentence if there is none.
pub fn explain<V: Vcpu>(vcpu: &V, code: u32, say: &mut dyn FnMut(fmt::Arguments<'_>)) {
    if let Some(why) = V::beyond_rules(code) {
        return say(format_args!("{why}"));
    }
    let mut none = true;
    vcpu.broken_rules(Moment::AfterFailure, &mut |rule| {
        none = false;
        say(format_args!("{rule}"));
    });
    if none {
        say(format_args!(
            "the state breaks no rule that Vidar knows; please report this together with the text above"
        ));
    }
}

/// The most different rules that are reported for one CPU. A state that breaks more is wrong from the ground up.
const REPORTED: usize = 16;

/// The check of one CPU.
#[derive(Debug, Default)]
pub struct Check {
    /// The numbers of the rules that have been reported, and empty names.
    reported: [&'static str; REPORTED],
}

impl Check {
    /// Asks all rules about the state of `vcpu`, and calls `say` with each that it breaks and that has not been said
    /// before.
    #[cold]
    pub fn ask<V: Vcpu>(&mut self, vcpu: &V, say: &mut dyn FnMut(fmt::Arguments<'_>)) {
        let index = vcpu.percpu().index;
        vcpu.broken_rules(Moment::BeforeEntry, &mut |rule| {
            if self.is_new(rule.id) {
                say(format_args!("the check before an entry on CPU {index}: {rule}"));
            }
        });
    }

    /// Returns true if the rule `id` has not been reported yet, and notes that it has been now. Returns false if there
    /// is no room for another rule.
    fn is_new(&mut self, id: &'static str) -> bool {
        let known = self.reported.iter_mut().find(|known| known.is_empty() || **known == id);
        match known {
            Some(free) if free.is_empty() => {
                *free = id;
                true
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_rule_is_new_once() {
        let mut check = Check::default();
        assert!(check.is_new("C1"));
        assert!(check.is_new("G2"));
        assert!(!check.is_new("C1"));
        assert!(!check.is_new("G2"));
    }

    #[test]
    fn rules_beyond_the_room_are_not_reported() {
        const NAMES: [&str; REPORTED + 1] =
            ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "a", "b", "c", "d", "e", "f", "g"];
        let mut check = Check::default();
        let new: Vec<bool> = NAMES.iter().map(|name| check.is_new(name)).collect();
        assert_eq!(new.iter().filter(|new| **new).count(), REPORTED);
        assert!(!new[REPORTED]);
    }
}
