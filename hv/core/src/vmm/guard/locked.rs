//! What is locked on this machine, and on which CPUs the lock holds.

use core::ops::Range;
use core::sync::atomic::{AtomicU32, Ordering, fence};

use spin::{Mutex, Once};

use super::audit::Audit;
use super::target::Target;
use crate::mem::addr::{Gpa, Hpa, overlaps};
use crate::vmm::percpu::PerCpu;

/// What is locked on this machine, and what has written to the kernel's code.
#[derive(Debug, Default)]
pub struct Locked {
    /// What is locked, once it is.
    pub target: Once<Target>,
    /// The number of changes of rights. It is raised after the tables have changed.
    change: AtomicU32,
    /// What has written to the kernel's code.
    pub audit: Mutex<Audit>,
}

impl Locked {
    /// Returns true if `range` overlaps data that is locked. A device that is laid over it would be read in its place.
    pub fn hold(&self, range: &Range<Hpa>) -> bool {
        let overlaps =
            |locked: &Range<Gpa>| overlaps(range, &(locked.start.identity()..locked.end.identity()));
        self.target.get().is_some_and(|target| overlaps(&target.data) || overlaps(&target.idt))
    }

    /// Returns the number of `cpus` that can write to nothing that is locked.
    pub fn held_by(&self, cpus: &[&PerCpu]) -> usize {
        match self.change() {
            0 => 0,
            change => cpus.iter().filter(|cpu| cpu.flushed.is_after(change)).count(),
        }
    }

    /// Notes that a CPU begins to run the guest, after an INIT or for the first time. It has flushed its translations
    /// since it ran the guest before, if it has.
    #[cold]
    pub fn enters(&self, percpu: &PerCpu) {
        // If the tables have changed meanwhile, this CPU has cached nothing of the old ones.
        loop {
            let change = self.change();
            percpu.flushed.after(change);
            fence(Ordering::SeqCst); // a CPU that changes the tables from now on sees that this one runs the guest
            if self.change() == change {
                break;
            }
        }
    }

    /// Notes that the tables have changed.
    pub fn changes(&self) {
        self.change.fetch_add(1, Ordering::AcqRel);
    }

    /// Returns the number of changes so far.
    pub fn change(&self) -> u32 {
        self.change.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cpu_holds_the_lock_once_it_has_flushed_or_if_it_does_not_run() {
        let locked = Locked::default();
        let [first, second, waits] = [0, 1, 2].map(|index| &*Box::leak(Box::new(PerCpu::new(index, index))));
        let cpus = [first, second, waits];
        locked.enters(first);
        locked.enters(second);
        assert_eq!(locked.held_by(&cpus), 0, "nothing is locked yet");
        locked.changes();
        assert_eq!(locked.held_by(&cpus), 1, "the one that does not run");
        first.flushed.after(1);
        assert_eq!(locked.held_by(&cpus), 2);
        locked.enters(waits);
        assert_eq!(locked.held_by(&cpus), 2);
        second.flushed.leaves();
        assert_eq!(locked.held_by(&cpus), 3);
    }
}
