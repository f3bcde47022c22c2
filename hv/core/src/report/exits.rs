//! The last exits of each CPU, where Vidar keeps a trace of them.

use core::fmt;

use vidar_abi::{Record, Subject};

use crate::trace::ring::Ring;
use crate::vmm::percpu::PerCpu;

/// How many exits of each CPU a crash report has.
const EXITS: usize = 8;

/// The last exits of a CPU. As text, each of them has a line of its own, with the function of the guest as `place`
/// names it.
pub struct Exits<'a, P> {
    cpu: u32,
    ring: &'a Ring,
    count: usize,
    place: P,
}

impl<'a, D: fmt::Display, P: Fn(u64) -> D> Exits<'a, P> {
    /// Returns those of the CPU with this block, or `None` if there is no trace of it.
    pub fn of(cpu: &'a PerCpu, place: P) -> Option<Self> {
        Some(Self { cpu: cpu.index, ring: cpu.trace.get()?, count: EXITS, place })
    }

    /// Returns these with `count` exits, in place of as many as a crash report has.
    pub fn last(self, count: usize) -> Self {
        Self { count, ..self }
    }
}

impl<D: fmt::Display, P: Fn(u64) -> D> fmt::Display for Exits<'_, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the last exits of CPU {}, the newest last:", self.cpu)?;
        let mut result = Ok(());
        self.ring.last(self.count, &mut |record| {
            if result.is_ok() {
                result = self.line(f, &record);
            }
        });
        result
    }
}

impl<D: fmt::Display, P: Fn(u64) -> D> Exits<'_, P> {
    fn line(&self, f: &mut fmt::Formatter<'_>, record: &Record) -> fmt::Result {
        let Record { tsc, ticks, kind, rip, .. } = record;
        write!(f, "\n  {tsc} +{ticks} {}", kind.name())?;
        match record.subject() {
            Subject::None => {}
            subject => write!(f, " {subject}")?,
        }
        write!(f, " at {}", (self.place)(*rip))
    }
}

#[cfg(test)]
mod tests {
    use vidar_abi::ExitKind;

    use super::*;
    use crate::trace::ring::tests::leaked;
    use crate::trace::writer::Writer;

    fn hex(address: u64) -> impl fmt::Display {
        fmt::from_fn(move |f| write!(f, "{address:#x}"))
    }

    #[test]
    fn the_last_eight_exits_have_a_line_each_and_the_newest_is_the_last() {
        let cpu = PerCpu::new(3, 0);
        assert!(Exits::of(&cpu, hex).is_none());
        let ring = leaked();
        cpu.trace.call_once(|| ring);
        let mut writer = Writer::new(ring);
        writer.end(0);
        for number in 1..=20_u32 {
            let (tsc, kind) = (1 << 40 | u64::from(number), ExitKind::Wrmsr);
            writer.begin_record(&Record {
                tsc,
                rip: 0x1000,
                ticks: 0,
                kind,
                detail: 0x10 + u64::from(number),
            });
            writer.end(number + 500);
        }
        let text = Exits::of(&cpu, hex).map(|exits| exits.to_string()).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 9, "{text}");
        assert_eq!(lines[0], "the last exits of CPU 3, the newest last:");
        assert_eq!(lines[1], "  1099511627789 +500 wrmsr MSR 0x1d at 0x1000");
        assert_eq!(lines[8], "  1099511627796 +500 wrmsr MSR 0x24 at 0x1000");
    }
}
