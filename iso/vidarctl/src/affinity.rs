//! Running on each CPU in turn.

use std::fs;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::failure::Failure;

/// Linux' list of the CPUs that are online.
const ONLINE: &str = "/sys/devices/system/cpu/online";

/// Calls `run` on each CPU that is online, and then lets the program run where it could before. Returns what `run` has
/// returned, and [`Failure::Unreached`] if Linux does not let this program run on one of the CPUs.
pub fn on_each_cpu<R>(mut run: impl FnMut() -> R) -> (Vec<R>, Result<(), Failure>) {
    let before = sched_getaffinity(None);
    let (mut results, mut reached) = (Vec::new(), Vec::new());
    for cpu in 0..CpuSet::MAX_CPU {
        let mut one = CpuSet::new();
        one.set(cpu);
        if sched_setaffinity(None, &one).is_ok() {
            results.push(run());
            reached.push(cpu);
        }
    }
    // The program ends soon. If Linux has taken a CPU away meanwhile, it also chooses another one.
    let _ = before.and_then(|before| sched_setaffinity(None, &before));
    // Without /sys nobody knows which others there are.
    let online = fs::read_to_string(ONLINE).unwrap_or_default();
    (results, unreached(&online, &reached).map_or(Ok(()), |cpu| Err(Failure::Unreached(cpu))))
}

/// Returns the first CPU of a list such as `0-3,5` that is not among `reached`.
fn unreached(list: &str, reached: &[usize]) -> Option<usize> {
    let ranges = list.trim().split(',').filter_map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        Some(first.parse().ok()?..=last.parse().ok()?)
    });
    ranges.flatten().find(|cpu| !reached.contains(cpu))
}

#[cfg(test)]
mod tests {
    use rustix::thread::sched_getcpu;

    use super::*;

    #[test]
    fn each_cpu_is_run_on_and_the_choice_is_undone() {
        let before = sched_getaffinity(None).unwrap();
        // The machine of the test may have CPUs on which this program may not run.
        let (cpus, _) = on_each_cpu(sched_getcpu);
        assert!(!cpus.is_empty() && cpus.is_sorted_by(|one, next| one < next), "{cpus:?}");
        assert!(before == sched_getaffinity(None).unwrap());
    }

    #[test]
    fn a_cpu_that_is_online_and_was_not_reached_is_found() {
        for (list, reached, expected) in [
            ("0-3,5\n", &[0, 1, 2, 3, 5][..], None),
            ("0-3,5\n", &[0, 1, 2, 3], Some(5)),
            ("0-3,5\n", &[0, 1, 3, 5], Some(2)),
            ("0\n", &[0, 1], None),
            ("0\n", &[], Some(0)),
            ("", &[], None),
        ] {
            assert_eq!(unreached(list, reached), expected, "{list:?} {reached:?}");
        }
    }
}
