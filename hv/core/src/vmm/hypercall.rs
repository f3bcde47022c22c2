//! The hypercalls of the crate `vidar_abi`. Any privilege level may make those that tell nothing of the kernel. Those
//! that end the guest, that lock memory, or whose answers have addresses of the kernel check their caller.

// tidy: long because its tests try each of the calls.

use core::ops::Range;
use core::sync::atomic::Ordering;

use vidar_abi::{
    Call, Commit, DmaFault, ExitKind, LOG_CHUNK, MAGIC, Protection, Record, Status, TRACE_CHUNK, VERSION,
};

use super::crash::Snapshot;
use super::guard::lock;
use super::machine::{Host, Machine, ReadLog};
use super::outcome::{Outcome, Stop};
use super::percpu::PerCpu;
use super::privilege::may_reset_with;
use super::vcpu::Vcpu;
use crate::iommu::guard::DmaGuard;
use crate::mem::addr::Hpa;
use crate::mem::stage2::TableMemory;
use crate::x86::registers::{Register, Registers};

/// Answers the call whose number is in RAX, unless it is a rare one, for which this returns false and [`rare`] has the
/// answer. The status goes to RAX, and the results to the registers that `vidar_abi` names for the call. A call that
/// fails changes RAX alone.
#[inline(always)] // so that a call costs little more than its exit
pub fn answer(registers: &mut Registers, host: &Host) -> bool {
    let status = Call::from_raw(registers.get(Register::Rax)).and_then(|call| read(call, registers, host));
    if let Some(status) = status {
        registers.set(Register::Rax, status as u64);
    }
    status.is_some()
}

/// Answers [`Call::Guard`]. `locked` is the number of CPUs on which the kernel's data is locked.
fn guard(registers: &mut Registers, host: &Host, locked: usize) -> Status {
    let Some(refusals) = &host.guard else { return Status::Off };
    let Some(protection) = Protection::from_raw(registers.get(Register::Rbx)) else {
        return Status::BadArgument;
    };
    let holds = |cpu: &&&PerCpu| cpu.pinned.load(Ordering::Relaxed) >> protection as u32 & 1 == 1;
    let (count, last) = refusals.get(protection);
    let held = match protection {
        Protection::Data | Protection::Idt => locked,
        _ => host.cpus.iter().filter(holds).count(),
    };
    registers.set(Register::Rbx, held as u64);
    registers.set(Register::Rcx, count);
    registers.set(Register::Rdx, last);
    Status::Ok
}

/// Answers the call whose number is in RAX if it is a rare one, or none at all. A new call belongs here, where it costs
/// the frequent exits nothing.
#[cold]
pub fn rare<V: Vcpu, T: TableMemory>(vcpu: &mut V, machine: &Machine<V, T>) -> Outcome {
    let status = match Call::from_raw(vcpu.registers().get(Register::Rax)) {
        Some(Call::Dma) => dma(vcpu.registers(), machine.host.dma),
        Some(call) => {
            let Snapshot { state, .. } = vcpu.snapshot();
            match call {
                _ if !may_reset_with(vcpu.cpl(), &state, machine.guest) => Status::NotPermitted,
                Call::Log => current_log(vcpu.registers(), &machine.host),
                Call::LastLog => last_log(vcpu.registers(), &machine.host),
                Call::Trace => trace(vcpu.registers(), &machine.host),
                Call::Guard => {
                    let locked = machine.locked.held_by(machine.host.cpus);
                    guard(vcpu.registers(), &machine.host, locked)
                }
                Call::Lock => lock::lock(vcpu, machine, &state),
                Call::Audit => lock::audit(vcpu, machine),
                Call::Crash => return Outcome::Stop(Stop::Requested),
                // These are answered before.
                Call::Version | Call::Status | Call::Exits | Call::Memory | Call::Commit | Call::Dma => {
                    Status::UnknownCall
                }
            }
        }
        None => Status::UnknownCall,
    };
    vcpu.registers().set(Register::Rax, status as u64);
    Outcome::Advance
}

/// Answers [`Call::Log`].
fn current_log(registers: &mut Registers, host: &Host) -> Status {
    set_log(registers, host.log);
    registers.set(Register::Rdx, 0);
    Status::Ok
}

/// Answers [`Call::Trace`].
fn trace(registers: &mut Registers, host: &Host) -> Status {
    let Some(cpu) = cpu(registers, host) else { return Status::BadArgument };
    let Some(ring) = cpu.trace.get() else { return Status::Off };
    let mut records = [[0; Record::WORDS]; TRACE_CHUNK];
    let (position, count) = ring.read(registers.get(Register::Rcx), &mut records);
    registers.set(Register::Rbx, position);
    registers.set(Register::Rcx, count as u64);
    // A record that has been copied in vain is not among those that are returned.
    records[count..].fill([0; Record::WORDS]);
    for (register, word) in Register::UPPER.into_iter().zip(records.as_flattened()) {
        registers.set(register, *word);
    }
    Status::Ok
}

/// Answers [`Call::LastLog`].
fn last_log(registers: &mut Registers, host: &Host) -> Status {
    set_log(registers, host.last_log);
    registers.set(Register::Rdx, host.record.start.0);
    registers.set(Register::Rsi, host.record.end.0 - host.record.start.0);
    Status::Ok
}

/// Answers a call that only reads. Returns `None` for those that are left to [`rare`].
#[inline(always)] // as `answer`
fn read(call: Call, registers: &mut Registers, host: &Host) -> Option<Status> {
    match call {
        Call::Version => {
            registers.set(Register::Rbx, MAGIC);
            registers.set(Register::Rcx, VERSION.to_raw().into());
            registers.set(Register::Rdx, PACKAGE_VERSION);
        }
        Call::Status => {
            if let Some(region) = host.kept.first() {
                set_range(registers, region);
            }
            registers.set(Register::Rdx, host.vendor as u64);
            registers.set(Register::Rsi, host.cpus.len() as u64);
            registers.set(Register::Rdi, host.cpus.iter().map(|cpu| cpu.counters.total()).sum());
        }
        Call::Exits => {
            let kind = ExitKind::from_raw(registers.get(Register::Rcx));
            let Some((cpu, kind)) = cpu(registers, host).zip(kind) else { return Some(Status::BadArgument) };
            registers.set(Register::Rbx, cpu.counters.get(kind));
        }
        Call::Memory => {
            let index = usize::try_from(registers.get(Register::Rbx)).ok();
            let mut pieces = host.kept.iter().chain([&host.lent]).filter(|range| !range.is_empty());
            let Some(range) = index.and_then(|index| pieces.nth(index)) else {
                return Some(Status::BadArgument);
            };
            set_range(registers, range);
        }
        Call::Commit => {
            let (digits, changed) = host.commit.map_or((0, 0), Commit::to_raw);
            registers.set(Register::Rbx, digits);
            registers.set(Register::Rcx, changed);
        }
        Call::Crash
        | Call::Dma
        | Call::Guard
        | Call::Log
        | Call::LastLog
        | Call::Trace
        | Call::Lock
        | Call::Audit => {
            return None;
        }
    }
    Some(Status::Ok)
}

/// Answers [`Call::Dma`].
fn dma(registers: &mut Registers, guard: &DmaGuard) -> Status {
    let (faults, fault) = guard.fault(registers.get(Register::Rbx));
    let [fault, address] = fault.map_or([0; 2], DmaFault::to_words);
    registers.set(Register::Rbx, guard.state() as u64);
    registers.set(Register::Rcx, guard.count() as u64);
    registers.set(Register::Rdx, faults);
    registers.set(Register::Rsi, fault);
    registers.set(Register::Rdi, address);
    Status::Ok
}

/// Returns the block of the CPU whose index is in RBX.
fn cpu(registers: &Registers, host: &Host) -> Option<&'static PerCpu> {
    let index = usize::try_from(registers.get(Register::Rbx)).ok()?;
    host.cpus.get(index).copied()
}

/// Reads a log from the position in RBX on.
fn set_log(registers: &mut Registers, read: ReadLog) {
    let mut chunk = [0; LOG_CHUNK];
    let (position, length) = read(registers.get(Register::Rbx), &mut chunk);
    registers.set(Register::Rbx, position);
    registers.set(Register::Rcx, length as u64);
    let (words, _) = chunk.as_chunks();
    for (register, word) in Register::UPPER.into_iter().zip(words) {
        registers.set(register, u64::from_le_bytes(*word));
    }
}

fn set_range(registers: &mut Registers, range: &Range<Hpa>) {
    registers.set(Register::Rbx, range.start.0);
    registers.set(Register::Rcx, range.end.0 - range.start.0);
}

/// Vidar's version, packed as `vidar_abi` defines it: major, minor and patch from bits 32, 16 and 0 on.
const PACKAGE_VERSION: u64 = {
    const fn number(text: &str) -> u64 {
        match u64::from_str_radix(text, 10) {
            Ok(number) => number,
            Err(_) => panic!("the package's version is not made of numbers"),
        }
    }
    number(env!("CARGO_PKG_VERSION_MAJOR")) << 32
        | number(env!("CARGO_PKG_VERSION_MINOR")) << 16
        | number(env!("CARGO_PKG_VERSION_PATCH"))
};

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use vidar_abi::{DmaState, Vendor};

    use super::*;
    use crate::trace::ring::tests::leaked;
    use crate::trace::writer::Writer;
    use crate::vmm::refusals::Refusals;

    static OPEN: DmaGuard = DmaGuard::open(DmaState::NotAsked, 2);

    const TEXT: &[u8] = b"vidar: a log of more than thirty-two bytes";

    fn log(position: u64, buffer: &mut [u8]) -> (u64, usize) {
        let start = (position as usize).min(TEXT.len());
        let length = buffer.len().min(TEXT.len() - start);
        buffer[..length].copy_from_slice(&TEXT[start..start + length]);
        (start as u64, length)
    }

    const KEPT: &[Range<Hpa>] = &[Hpa(0x20_0000)..Hpa(0x40_0000), Hpa(0x60_0000)..Hpa(0x80_0000)];
    const LENT: Range<Hpa> = Hpa(0x9_e000)..Hpa(0x9_f000);

    fn call(registers: &mut Registers) {
        call_of(Commit::parse("0123456789ab+"), registers);
    }

    /// Answers a call as [`rare`] does for one who may make it.
    fn ask(registers: &mut Registers, host: &Host) {
        if !answer(registers, host) {
            let status = match Call::from_raw(registers.get(Register::Rax)) {
                Some(Call::Log) => current_log(registers, host),
                Some(Call::LastLog) => last_log(registers, host),
                Some(Call::Trace) => trace(registers, host),
                Some(Call::Guard) => guard(registers, host, 0),
                Some(Call::Dma) => dma(registers, host.dma),
                _ => Status::UnknownCall,
            };
            registers.set(Register::Rax, status as u64);
        }
    }

    /// Calls a Vidar that was built from `commit`.
    fn call_of(commit: Option<Commit>, registers: &mut Registers) {
        let cpu: &PerCpu = Box::leak(Box::new(PerCpu::new(0, 0)));
        cpu.counters.count(ExitKind::Invd);
        let cpus = Box::leak(Box::new([cpu]));
        let last_log = |position, buffer: &mut [u8]| log(u64::max(position, 7), buffer);
        let record = Hpa(0x3f00_0000)..Hpa(0x3f00_8000);
        let host = Host {
            kept: KEPT,
            lent: LENT,
            vendor: Vendor::Vmx,
            commit,
            cpus,
            guard: None,
            log,
            last_log,
            record,
            dma: &OPEN,
        };
        ask(registers, &host);
    }

    fn with(values: &[(Register, u64)]) -> Registers {
        let mut registers = Registers::default();
        values.iter().for_each(|(register, value)| registers.set(*register, *value));
        registers
    }

    #[test]
    fn version_returns_the_magic_number_and_status_the_region_and_exits() {
        let mut registers = with(&[]);
        call(&mut registers);
        assert_eq!(registers.get(Register::Rax), 0);
        assert_eq!(registers.get(Register::Rbx), MAGIC);
        let mut registers = with(&[(Register::Rax, 1)]);
        call(&mut registers);
        assert_eq!([registers.get(Register::Rbx), registers.get(Register::Rcx)], [0x20_0000, 0x20_0000]);
        assert_eq!(registers.get(Register::Rdi), 1);
    }

    #[test]
    fn dma_returns_the_state_the_units_and_no_fault() {
        let mut registers = with(&[(Register::Rax, Call::Dma as u64), (Register::Rsi, 9)]);
        call(&mut registers);
        let state = DmaState::NotAsked as u64;
        assert_eq!(registers, with(&[(Register::Rbx, state), (Register::Rcx, 2)]));
    }

    #[test]
    fn memory_returns_one_range_for_each_index() {
        for (index, range) in (0..).zip(KEPT.iter().chain([&LENT])) {
            let mut registers = with(&[(Register::Rax, 4), (Register::Rbx, index)]);
            call(&mut registers);
            let answer =
                [Register::Rax, Register::Rbx, Register::Rcx].map(|register| registers.get(register));
            assert_eq!(answer, [0, range.start.0, range.end.0 - range.start.0]);
        }
        let mut registers = with(&[(Register::Rax, 4), (Register::Rbx, 3)]);
        call(&mut registers);
        assert_eq!(registers, with(&[(Register::Rax, 2), (Register::Rbx, 3)]));
    }

    #[test]
    fn commit_returns_digits_and_a_sign_of_changes_or_zeros() {
        for (commit, answer) in [
            (Commit::parse("0123456789ab+"), [0, 0x0123_4567_89ab, 1]),
            (Commit::parse("0123456789ab"), [0, 0x0123_4567_89ab, 0]),
            (None, [0, 0, 0]),
        ] {
            let mut registers = with(&[(Register::Rax, 5), (Register::Rbx, 8), (Register::Rcx, 9)]);
            call_of(commit, &mut registers);
            let got = [Register::Rax, Register::Rbx, Register::Rcx].map(|register| registers.get(register));
            assert_eq!(got, answer);
        }
    }

    /// Reads a log by the call with this number, and returns it with RDX and RSI of the last answer.
    fn read(number: u64) -> (Vec<u8>, [u64; 2]) {
        let (mut position, mut all) = (0, Vec::new());
        loop {
            let mut registers = with(&[
                (Register::Rax, number),
                (Register::Rbx, position),
                (Register::Rdx, 1),
                (Register::Rsi, 1),
            ]);
            call(&mut registers);
            let words = [Register::R8, Register::R9, Register::R10, Register::R11].map(|r| registers.get(r));
            let length = registers.get(Register::Rcx);
            if length == 0 {
                return (all, [registers.get(Register::Rdx), registers.get(Register::Rsi)]);
            }
            all.extend_from_slice(&words.map(u64::to_le_bytes).concat()[..length as usize]);
            position = registers.get(Register::Rbx) + length;
        }
    }

    #[test]
    fn a_log_is_returned_as_a_whole_in_chunks() {
        assert_eq!(read(3), (TEXT.to_vec(), [0, 1]));
        assert_eq!(read(7), (TEXT[7..].to_vec(), [0x3f00_0000, 0x8000]));
    }

    /// The record at a position of the trace.
    fn recorded(exit: u64) -> Record {
        Record { tsc: exit << 8, rip: exit + 1, ticks: 3, kind: ExitKind::Wrmsr, detail: exit + 2 }
    }

    /// Calls a Vidar of two CPUs, the second of which has a trace up to the position `exits`.
    fn call_traced(exits: u64, registers: &mut Registers) {
        let ring = leaked();
        let mut writer = Writer::new(ring);
        writer.end(0);
        for exit in 1..exits {
            writer.begin_record(&recorded(exit));
            writer.end((exit << 8) as u32 + 3);
        }
        let [one, other]: [&PerCpu; 2] = [0, 1].map(|index| &*Box::leak(Box::new(PerCpu::new(index, 0))));
        other.trace.call_once(|| ring);
        let cpus = Box::leak(Box::new([one, other]));
        let (last_log, record) = (log, Hpa(0)..Hpa(0));
        ask(
            registers,
            &Host {
                kept: KEPT,
                lent: LENT,
                vendor: Vendor::Svm,
                commit: None,
                cpus,
                guard: None,
                log,
                last_log,
                record,
                dma: &OPEN,
            },
        );
    }

    #[test]
    fn trace_returns_two_records_at_a_time_up_to_the_end() {
        const TRACE: (Register, u64) = (Register::Rax, Call::Trace as u64);
        for (exits, position, wanted) in [
            (3, 0, (1, vec![1, 2])),
            (4, 1, (1, vec![1, 2])),
            (3, 2, (2, vec![2])),
            (3, 3, (3, vec![])),
            (3, u64::MAX, (3, vec![])),
            (1000, 5, (489, vec![489, 490])),
        ] {
            let mut registers =
                with(&[TRACE, (Register::Rbx, 1), (Register::Rcx, position), (Register::R15, 9)]);
            call_traced(exits, &mut registers);
            let mut expected = with(&[(Register::Rbx, wanted.0), (Register::Rcx, wanted.1.len() as u64)]);
            let words: Vec<u64> = wanted.1.iter().flat_map(|exit| recorded(*exit).to_words()).collect();
            Register::UPPER.into_iter().zip(words).for_each(|(register, word)| expected.set(register, word));
            assert_eq!(registers, expected, "{exits} exits, from {position}");
        }
    }

    #[test]
    fn trace_says_that_it_is_off_and_that_a_cpu_is_not_there() {
        for (cpu, status) in [(0, Status::Off), (2, Status::BadArgument), (u64::MAX, Status::BadArgument)] {
            let asked = [(Register::Rbx, cpu), (Register::Rcx, 1), (Register::R8, 9)];
            let mut registers = with(&asked);
            registers.set(Register::Rax, Call::Trace as u64);
            call_traced(1, &mut registers);
            let mut expected = with(&asked);
            expected.set(Register::Rax, status as u64);
            assert_eq!(registers, expected);
        }
    }

    #[test]
    fn guard_returns_what_was_refused_and_where_it_holds() {
        let cpus: [&PerCpu; 2] = [0, 1].map(|index| &*Box::leak(Box::new(PerCpu::new(index, 0))));
        cpus[1].pinned.store(1 << Protection::Lstar as u32, Ordering::Relaxed);
        let guard = Refusals::default();
        guard.count(Protection::Lstar, 7);
        guard.count(Protection::Lstar, 9);
        let mut host = Host {
            dma: &OPEN,
            kept: KEPT,
            lent: LENT,
            vendor: Vendor::Svm,
            commit: None,
            cpus: Box::leak(Box::new(cpus)),
            guard: Some(guard),
            log,
            last_log: log,
            record: Hpa(0)..Hpa(0),
        };
        let guard_of = |number: u64, host: &Host| {
            let mut registers = with(&[(Register::Rax, Call::Guard as u64), (Register::Rbx, number)]);
            ask(&mut registers, host);
            [Register::Rax, Register::Rbx, Register::Rcx, Register::Rdx]
                .map(|register| registers.get(register))
        };
        assert_eq!(guard_of(Protection::Lstar as u64, &host), [0, 1, 2, 9]);
        assert_eq!(guard_of(Protection::Cr0Wp as u64, &host), [0, 0, 0, 0]);
        let none = Protection::COUNT as u64;
        assert_eq!(guard_of(none, &host), [Status::BadArgument as u64, none, 0, 0]);
        host.guard = None;
        assert_eq!(guard_of(1, &host), [Status::Off as u64, 1, 0, 0]);
    }

    proptest! {
        #[test]
        fn a_refused_call_changes_rax_alone(rax in any::<u64>(), rbx in 1u64.., rcx in any::<u64>()) {
            let before = with(&[(Register::Rax, rax), (Register::Rbx, rbx), (Register::Rcx, rcx)]);
            for mut registers in [before, with(&[(Register::Rax, 2), (Register::Rbx, rbx), (Register::Rcx, rcx)])] {
                let mut expected = registers;
                let known = Call::from_raw(registers.get(Register::Rax));
                prop_assume!(matches!(known, None | Some(Call::Exits)));
                expected.set(Register::Rax, if known.is_some() { 2 } else { 1 });
                call(&mut registers);
                prop_assert_eq!(registers, expected);
            }
        }
    }
}
