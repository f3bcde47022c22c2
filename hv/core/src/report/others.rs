//! The CPUs besides the one that writes the report.

use core::fmt;

use super::state::Brief;
use crate::vmm::crash::Snapshot;

/// What is known of another CPU when the report is written.
#[derive(Debug)]
pub enum Found<'a> {
    /// It has been stopped in this state.
    Stopped(&'a Snapshot),
    /// It waits for a start-up IPI.
    Waits,
    /// It has not answered.
    Silent,
}

/// The other CPUs, with their numbers. As text, each of them has a line of its own.
#[derive(Debug)]
pub struct Others<I>(pub I);

impl<'a, I: Iterator<Item = (u32, Found<'a>)> + Clone> fmt::Display for Others<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the other CPUs, which this one has stopped:")?;
        self.0.clone().try_for_each(|(cpu, found)| {
            write!(f, "\n  CPU {cpu} ")?;
            match found {
                Found::Stopped(snapshot) => Brief(&snapshot.state).fmt(f),
                Found::Waits => f.write_str("waits for a start-up IPI"),
                Found::Silent => f.write_str("does not answer; it waits for a start-up IPI, or is lost"),
            }
        })
    }
}

/// What a report says in place of [`Others`] where the other CPUs cannot be stopped.
pub const RUN_ON: &str = "the other CPUs run on, since an INIT would reset the machine here, so the report cannot show their state";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::x86::registers::Register;

    #[test]
    fn each_cpu_has_a_line_that_says_what_is_known_of_it() {
        let mut snapshot = Snapshot::default();
        snapshot.state.rip = 0xffff_ffff_8100_0000;
        snapshot.state.registers.set(Register::Rsp, 0x10);
        let found = || [(1, Found::Stopped(&snapshot)), (2, Found::Waits), (3, Found::Silent)];
        let indices = 0..3;
        let others = Others(indices.map(|index: usize| found().into_iter().nth(index).unwrap()));
        assert_eq!(
            others.to_string(),
            "the other CPUs, which this one has stopped:\n  \
             CPU 1 rip ffffffff81000000 rsp 0000000000000010 cr3 0000000000000000 cpl 0\n  \
             CPU 2 waits for a start-up IPI\n  \
             CPU 3 does not answer; it waits for a start-up IPI, or is lost"
        );
    }
}
