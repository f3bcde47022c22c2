//! Reads the traces of all CPUs, in the order of time.

use super::Exit;
use super::kinds::Kinds;
use super::own::Own;
use crate::failure::Failure;
use crate::hypercall::{Answer, Request};
use crate::query::Vidar;

/// Reads the traces of all CPUs, and goes on from where it was.
pub struct Reader<'a, C> {
    vidar: &'a Vidar<C>,
    own: Own,
    only: Kinds,
    /// The position from which the trace of each CPU is read next.
    next: Vec<u64>,
}

/// Exits that were read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Read {
    /// The exits, the newest last.
    pub exits: Vec<Exit>,
    /// The number of exits that were overwritten before they could be read.
    pub lost: u64,
}

impl<'a, C: Fn(Request) -> Answer> Reader<'a, C> {
    /// Returns a reader that begins with the oldest exits of the kinds `only`, and that leaves out those of `own`.
    pub fn new(vidar: &'a Vidar<C>, own: Own, only: Kinds) -> Result<Self, Failure> {
        let cpus = vidar.cpus()?;
        Ok(Self { vidar, own, only, next: vec![0; cpus as usize] })
    }

    /// Returns the number of CPUs.
    pub fn cpus(&self) -> u64 {
        self.next.len() as u64
    }

    /// Reads what has not been read yet.
    pub fn read(&mut self) -> Result<Read, Failure> {
        let mut read = Read::default();
        for cpu in 0..self.cpus() {
            let from = self.next[cpu as usize];
            let to = self.vidar.trace_end(cpu)?;
            let records = self.vidar.trace(cpu, from, to)?;
            // Whoever begins to read has lost nothing.
            if from > 0 {
                read.lost += (to - from).saturating_sub(records.len() as u64);
            }
            let exits = records.into_iter().map(|(_, record)| Exit { cpu, record });
            let is_asked_for = |exit: &Exit| self.only.contain(exit) && !self.own.contains(exit.record.rip);
            read.exits.extend(exits.filter(is_asked_for));
            self.next[cpu as usize] = to;
        }
        read.exits.sort_by_key(|exit| exit.record.tsc);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use vidar_abi::{Call, ExitKind, MAGIC, Record, VERSION};

    use super::*;

    const SLOTS: u64 = 511;

    /// Two CPUs with traces. Each call but that for the trace is an exit of CPU 1.
    struct Machine(RefCell<[Vec<Record>; 2]>);

    impl Machine {
        fn exit(&self, cpu: usize, rip: u64) {
            let mut traces = self.0.borrow_mut();
            let tsc = traces.iter().map(|trace| trace.len() as u64).sum();
            traces[cpu].push(Record { tsc, rip, ticks: 1, kind: ExitKind::Hypercall, detail: 8 });
        }

        fn call(&self, request: Request) -> Answer {
            let ok = Answer::default();
            let answer = match Call::from_raw(request.rax) {
                Some(Call::Version) => Answer { rbx: MAGIC, rcx: VERSION.to_raw().into(), ..ok },
                Some(Call::Status) => Answer { rsi: 2, ..ok },
                Some(Call::Trace) => {
                    let trace = &self.0.borrow()[request.rbx as usize];
                    let end = trace.len() as u64;
                    let start = request.rcx.max(end.saturating_sub(SLOTS)).min(end);
                    let words: Vec<_> =
                        trace[start as usize..].iter().take(2).flat_map(|record| record.to_words()).collect();
                    let mut r8_to_r15 = [0; 8];
                    r8_to_r15[..words.len()].copy_from_slice(&words);
                    Answer { rbx: start, rcx: words.len() as u64 / 4, r8_to_r15, ..ok }
                }
                _ => panic!("this call is not expected"),
            };
            if request.rax != Call::Trace as u64 {
                self.exit(1, OWN);
            }
            answer
        }
    }

    const OWN: u64 = 0x7f00_0000_5000;
    const OTHER: u64 = 0xffff_ffff_8100_0000;

    #[test]
    fn all_exits_but_this_programs_own_are_read_once_and_in_order() {
        let machine = Machine(RefCell::new([vec![], vec![]]));
        for exit in 0..1500 {
            machine.exit(usize::from(exit % 3 == 0), OTHER + exit);
        }
        let before = machine.0.borrow().clone();
        let vidar = Vidar::find(|request| machine.call(request), None).unwrap();
        let mut reader = Reader::new(&vidar, Own::at(OWN), Kinds::ALL).unwrap();
        let read = reader.read().unwrap();
        let of = |cpu: u64| read.exits.iter().filter(move |exit| exit.cpu == cpu).map(|exit| exit.record);
        assert_eq!(of(0).collect::<Vec<_>>(), before[0][before[0].len() - SLOTS as usize..]);
        assert_eq!(of(1).collect::<Vec<_>>(), before[1]);
        assert!(read.exits.is_sorted_by_key(|exit| exit.record.tsc));
        assert_eq!(read.lost, 0);
        assert_eq!(reader.read().unwrap(), Read::default());
        machine.exit(0, OTHER);
        assert_eq!(reader.read().unwrap().exits.len(), 1);
    }

    #[test]
    fn exits_of_other_kinds_are_left_out() {
        let machine = Machine(RefCell::new([vec![], vec![]]));
        machine.exit(0, OTHER);
        let vidar = Vidar::find(|request| machine.call(request), None).unwrap();
        for (only, found) in [("hypercall,nmi", 1), ("cpuid,nmi", 0)] {
            let mut reader = Reader::new(&vidar, Own::at(OWN), Kinds::parse(only).unwrap()).unwrap();
            assert_eq!(reader.read().unwrap().exits.len(), found, "{only}");
        }
    }

    #[test]
    fn exits_that_were_overwritten_meanwhile_are_counted() {
        let machine = Machine(RefCell::new([vec![], vec![]]));
        machine.exit(0, OTHER);
        let vidar = Vidar::find(|request| machine.call(request), None).unwrap();
        let mut reader = Reader::new(&vidar, Own::at(OWN), Kinds::ALL).unwrap();
        reader.read().unwrap();
        for _ in 0..SLOTS + 10 {
            machine.exit(0, OTHER);
        }
        let read = reader.read().unwrap();
        assert_eq!((read.exits.len() as u64, read.lost), (SLOTS, 10));
    }
}
