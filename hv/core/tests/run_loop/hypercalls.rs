//! The answers to hypercalls.

use vidar_abi::{Call, ExitKind, MAGIC, Status, VERSION, Vendor};
use vidar_core::vmm::exit::Exit;
use vidar_core::vmm::outcome::Stop;
use vidar_core::x86::registers::Register::{self, Rax, Rbx, Rcx, Rdi, Rdx, Rsi};

use crate::bench::{Action, Bench, REGION};

#[test]
fn a_program_without_the_right_to_reset_the_machine_cannot_crash_the_guest() {
    for (cpl, asked, rax) in
        [(0, Some(Stop::Requested), Call::Crash as u64), (3, None, Status::NotPermitted as u64)]
    {
        let mut bench = Bench::with(&[(Rax, Call::Crash as u64)]);
        bench.cpu.cpl = cpl;
        let ((stop, _), did) = bench.run(&[Exit::Hypercall, Exit::TripleFault]);
        assert_eq!(stop, asked.unwrap_or(Stop::TripleFault), "from CPL {cpl}");
        assert_eq!(did.contains(&Action::Advance), asked.is_none());
        assert_eq!(bench.get(Rax), rax);
    }
}

#[test]
fn a_program_without_that_right_cannot_read_the_log_of_the_last_start() {
    for (cpl, status) in [(0, Status::Ok), (3, Status::NotPermitted)] {
        let mut bench = Bench::with(&[(Rax, Call::LastLog as u64)]);
        bench.cpu.cpl = cpl;
        let (_, did) = bench.run(&[Exit::Hypercall, Exit::TripleFault]);
        assert!(did.contains(&Action::Advance));
        assert_eq!(bench.get(Rax), status as u64, "from CPL {cpl}");
    }
}

#[test]
fn hypercalls_describe_the_machine() {
    let call = |bench: &mut Bench, call: u64, rbx, rcx| {
        [(Rax, call), (Rbx, rbx), (Rcx, rcx)]
            .iter()
            .for_each(|(r, value)| bench.cpu.registers.set(*r, *value));
        let (_, did) = bench.run(&[Exit::Hypercall, Exit::TripleFault]);
        assert_eq!(did, [Action::Run, Action::Advance, Action::Run]);
        [Rax, Rbx, Rcx, Rdx, Rsi, Rdi].map(|register| bench.get(register))
    };
    let mut bench = Bench::with(&[]);
    let ok = Status::Ok as u64;
    let got = call(&mut bench, Call::Version as u64, 0, 0);
    assert_eq!(got[..3], [ok, MAGIC, VERSION.to_raw().into()]);
    let got = call(&mut bench, Call::Status as u64, 0, 0);
    // So far two hypercalls, this one among them, and a triple fault.
    assert_eq!(got, [ok, REGION.start.0, REGION.end.0 - REGION.start.0, Vendor::Vmx as u64, 1, 3]);
    let got = call(&mut bench, Call::Exits as u64, 0, ExitKind::Hypercall as u64);
    assert_eq!(got[..2], [ok, 3]);
    let got = call(&mut bench, Call::Exits as u64, 1, 0);
    assert_eq!(got[..3], [Status::BadArgument as u64, 1, 0], "there is one CPU");
    let got = call(&mut bench, Call::Log as u64, 77, 0);
    assert_eq!(
        (&got[..4], bench.get(Register::R8)),
        (&[ok, 77, 2, 0][..], u64::from_le_bytes(*b"ok\0\0\0\0\0\0"))
    );
    for known in Call::ALL.iter().filter(|call| **call != Call::Crash) {
        // No trace is kept, and nothing is guarded.
        let off = [Call::Trace, Call::Lock, Call::Audit].contains(known);
        let status = if off { Status::Off as u64 } else { ok };
        assert_eq!(call(&mut bench, *known as u64, 0, 0)[0], status, "{}", known.name());
    }
    let got = call(&mut bench, 1 << 32, 8, 9);
    assert_eq!(got[..3], [Status::UnknownCall as u64, 8, 9], "all of RAX is the number");
}
