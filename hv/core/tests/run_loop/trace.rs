//! The loop with a tracer: what it records of each exit.

use vidar_abi::{Call, ExitKind, Record};
use vidar_core::mem::addr::Gpa;
use vidar_core::trace::ring::{Ring, Slot};
use vidar_core::vmm::exit::{Exit, Immediate, Violation};
use vidar_core::vmm::observer::Unobserved;
use vidar_core::vmm::tracer::Tracer;
use vidar_core::x86::registers::Register;

use crate::bench::{Bench, CODE};

/// The number of slots of the ring.
const SLOTS: usize = 8;

fn ring() -> &'static Ring {
    Box::leak(Box::new(Ring::new(Box::leak(Box::new([const { Slot::empty() }; SLOTS])))))
}

/// Runs the loop through `exits`, and returns what was recorded of them.
fn traced(bench: &mut Bench, exits: &[Exit]) -> Vec<Record> {
    let ring = ring();
    bench.run_observed(exits, &mut Tracer::new(ring));
    let mut records = Vec::new();
    ring.last(SLOTS, &mut |record| records.push(record));
    records
}

#[test]
fn each_exit_has_a_record_of_what_exited() {
    let address = Gpa(0xfed0_0000);
    let immediate = Immediate { index: 0x1b, register: Register::Rdx };
    for (exit, kind, detail) in [
        (Exit::Cpuid, ExitKind::Cpuid, 0x8000_0002),
        (Exit::Rdmsr, ExitKind::Rdmsr, 0x10),
        (Exit::Wrmsr, ExitKind::Wrmsr, 0x10),
        (Exit::Xsetbv, ExitKind::Xsetbv, 0x10),
        (Exit::Hypercall, ExitKind::Hypercall, 0x8000_0002),
        (Exit::RdmsrImmediate(immediate), ExitKind::Rdmsr, 0x1b),
        (Exit::SecondStage(Violation { address, mapped: false }), ExitKind::SecondStage, address.0),
        (Exit::Invd, ExitKind::Invd, 0),
        (Exit::Nmi, ExitKind::Nmi, 0),
    ] {
        let mut bench = Bench::new();
        bench.cpu.registers.set(Register::Rax, 0x1_8000_0002);
        bench.cpu.registers.set(Register::Rcx, 0x1_0000_0010);
        let records = traced(&mut bench, &[exit, Exit::TripleFault]);
        let [record] = records[..] else { panic!("{exit:?}: {records:?}") };
        assert_eq!((record.kind, record.rip, record.detail), (kind, CODE, detail), "{exit:?}");
    }
}

#[test]
fn the_call_that_reads_the_trace_is_not_in_it() {
    let mut bench = Bench::new();
    bench.cpu.registers.set(Register::Rax, Call::Trace as u64);
    let records = traced(&mut bench, &[Exit::Hypercall, Exit::Nmi, Exit::TripleFault]);
    assert_eq!(records.iter().map(|record| record.kind).collect::<Vec<_>>(), [ExitKind::Nmi]);
}

#[test]
fn a_record_lasts_from_the_exit_to_the_next_entry() {
    // The counter of the fake CPU is the number of things that were done to it.
    let records = traced(&mut Bench::new(), &[Exit::Invd, Exit::Nmi, Exit::Invd, Exit::TripleFault]);
    let times: Vec<_> = records.iter().map(|record| (record.tsc & 0xffff_ffff, record.ticks)).collect();
    assert_eq!(times, [(1, 2), (4, 0), (5, 2)]);
    assert!(records.iter().all(|record| record.tsc >> 32 == 1));
}

#[test]
fn a_tracer_changes_nothing() {
    const EXITS: [Exit; 7] = [
        Exit::Cpuid,
        Exit::Nmi,
        Exit::Invd,
        Exit::Undefined,
        Exit::Hypercall,
        Exit::Rdmsr,
        Exit::TripleFault,
    ];
    let ring = ring();
    let traced = Bench::new().run_observed(&EXITS, &mut Tracer::new(ring));
    assert_eq!(traced, Bench::new().run_observed(&EXITS, &mut Unobserved));
}
