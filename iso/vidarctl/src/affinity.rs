//! Running on each CPU in turn.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Calls `run` on each CPU that is online and that Linux lets this program run on, and then lets the program run where it could
/// before. Returns what `run` has returned.
pub fn on_each_cpu<R>(mut run: impl FnMut() -> R) -> Vec<R> {
    let before = sched_getaffinity(None);
    let mut results = Vec::new();
    for cpu in 0..CpuSet::MAX_CPU {
        let mut one = CpuSet::new();
        one.set(cpu);
        if sched_setaffinity(None, &one).is_ok() {
            results.push(run());
        }
    }
    // The program ends soon. If Linux has taken a CPU away meanwhile, it also chooses another one.
    let _ = before.and_then(|before| sched_setaffinity(None, &before));
    results
}

#[cfg(test)]
mod tests {
    use rustix::thread::sched_getcpu;

    use super::*;

    #[test]
    fn each_cpu_is_run_on_and_the_choice_is_undone() {
        let before = sched_getaffinity(None).unwrap();
        let cpus = on_each_cpu(sched_getcpu);
        assert!(!cpus.is_empty() && cpus.is_sorted_by(|one, next| one < next), "{cpus:?}");
        assert!(before == sched_getaffinity(None).unwrap());
    }
}
