//! What the boot options `guard=data` and `guard=audit` lock, and what happens at a write there.

use vidar_abi::{Call, Protection, Status};
use vidar_core::mem::addr::{Gpa, Hpa, PAGE_SIZE};
use vidar_core::mem::ranges::RangeSet;
use vidar_core::mem::stage2::PageAccess;
use vidar_core::mem::walk::ReadGuest;
use vidar_core::policy::guard::Guard;
use vidar_core::vmm::exit::Exit;
use vidar_core::vmm::machine::Startup;
use vidar_core::vmm::outcome::{Exception, Interrupted, Outcome, Stop};
use vidar_core::x86::msr::{APIC_BASE, MMIO_CFG_BASE};
use vidar_core::x86::registers::Register::{self, Rax, Rbx, Rcx, Rdx};

use crate::bench::{Action, Bench, FakeCpu, warnings};
use crate::kernel_image::{ERAS, IDT, IDT_USED, IMAGE_AT, RODATA, TABLES, TEXT, build, in_image};
use crate::{REFUSED, denied, indexed};

/// A byte of the read-only data, in the page that holds its end.
const DATA: Gpa = Gpa(RODATA.end + 0x10);
/// A byte of the interrupt descriptor table.
const GATE: Gpa = Gpa(IDT + 0x123);
/// A byte of the code.
const CODE: Gpa = Gpa(IMAGE_AT + 0x80);
/// Bytes around what is locked.
const BESIDE: [Gpa; 3] = [Gpa(RODATA.start - 1), Gpa(0x1_1000), Gpa(IDT + 0x1000)];

struct Memory(Vec<u8>);

impl ReadGuest for Memory {
    fn word(&self, address: Gpa) -> Option<u64> {
        let rest = self.0.get(usize::try_from(address.0).ok()?..)?;
        Some(u64::from_le_bytes(*rest.first_chunk()?))
    }

    fn page(&self, _: Gpa) -> Option<Hpa> {
        None
    }
}

/// Returns a bench with so many CPUs, whose guest runs a Linux.
fn linux(guard: Guard, cpus: u32) -> Bench {
    let others: Vec<_> = (1..cpus).collect();
    let mut bench = Bench::with_others(&others, Startup::Hardware(()));
    let memory = build(&ERAS[1]);
    bench.machine.guard = guard;
    bench.machine.ram = memory.ram();
    bench.machine.guest = Box::leak(Box::new(Memory(memory.bytes)));
    runs_linux(&mut bench.cpu);
    bench.machine.locked.enters(bench.cpu.percpu);
    bench
}

/// Puts a CPU into the state of one that runs this Linux.
fn runs_linux(cpu: &mut FakeCpu) {
    let controls = &mut cpu.controls;
    (controls.cr0, controls.cr3, controls.cr4) = (1 << 31 | 1, TABLES, 1 << 5);
    (controls.efer, controls.cs_l) = (1 << 10 | 1 << 8, true);
    (cpu.idtr.base, cpu.idtr.limit) = (IDT_USED, 0xfff);
}

/// Makes a call. Returns the status and the first results.
fn call(bench: &mut Bench, call: Call, rbx: u64) -> [u64; 4] {
    bench.cpu.registers.set(Rax, call as u64);
    bench.cpu.registers.set(Rbx, rbx);
    assert_eq!(bench.answer(Exit::Hypercall).0, Outcome::Advance);
    [Rax, Rbx, Rcx, Rdx].map(|register| bench.get(register))
}

fn lock(bench: &mut Bench) -> [u64; 3] {
    let [status, held, all, _] = call(bench, Call::Lock, 0);
    [status, held, all]
}

fn access(bench: &Bench, address: Gpa) -> PageAccess {
    bench.machine.memory.lock().access(address).unwrap()
}

#[test]
fn nothing_is_locked_unless_the_option_says_so() {
    for guard in [Guard::Off, Guard::Cpu] {
        let mut bench = linux(guard, 1);
        assert_eq!(lock(&mut bench)[0], Status::Off as u64);
        assert_eq!(access(&bench, DATA), PageAccess::all());
        assert_eq!(bench.answer(denied(DATA)), (Outcome::Resume, vec![Action::Flush]));
    }
}

#[test]
fn a_program_without_rights_locks_nothing_and_reads_no_address_of_the_kernel() {
    let mut bench = linux(Guard::Audit, 1);
    bench.cpu.cpl = 3;
    for privileged in [Call::Lock, Call::Audit, Call::Guard, Call::Log, Call::Trace, Call::LastLog] {
        let refused = [Status::NotPermitted as u64, 0];
        assert_eq!(call(&mut bench, privileged, 0)[..2], refused, "{}", privileged.name());
    }
    // The I/O privilege level is what Linux gives to root's programs.
    bench.cpu.rflags = 3 << 12;
    assert_eq!(call(&mut bench, Call::Guard, 0)[0], Status::Ok as u64);
    bench.cpu.rflags = 0;
    for open in [Call::Version, Call::Status, Call::Exits, Call::Memory, Call::Commit] {
        assert_ne!(call(&mut bench, open, 0)[0], Status::NotPermitted as u64, "{}", open.name());
    }
    assert_eq!(access(&bench, DATA), PageAccess::all());
}

#[test]
fn data_and_idt_are_locked_and_nothing_else() {
    let mut bench = linux(Guard::Data, 1);
    assert_eq!(lock(&mut bench), [Status::Ok as u64, 1, 1]);
    for address in [DATA, GATE, Gpa(RODATA.start)] {
        assert!(!access(&bench, address).contains(PageAccess::WRITE), "{address}");
    }
    for address in BESIDE.into_iter().chain([CODE]) {
        assert_eq!(access(&bench, address), PageAccess::all(), "{address}");
        assert_eq!(bench.answer(denied(address)), (Outcome::Resume, vec![Action::Flush]), "{address}");
    }
}

#[test]
fn a_write_to_locked_memory_is_refused_and_counted() {
    for (address, protection) in [(DATA, Protection::Data), (GATE, Protection::Idt)] {
        let mut bench = linux(Guard::Data, 1);
        lock(&mut bench);
        warnings();
        for _ in 0..3 {
            assert_eq!(bench.answer(denied(address)), (REFUSED, vec![]));
        }
        assert_eq!(bench.machine.host.guard.as_ref().unwrap().get(protection).0, 3);
        let said = warnings();
        assert_eq!(said.len(), 1, "once for each RIP: {said:?}");
        assert!(said[0].contains(&format!("write to the kernel's {}", protection.name())), "{said:?}");
        assert!(!access(&bench, address).contains(PageAccess::WRITE));
    }
}

#[test]
fn a_fault_that_cannot_be_delivered_is_not_delivered_for_ever() {
    let mut bench = linux(Guard::Data, 1);
    lock(&mut bench);
    for (event, outcome) in [
        (Interrupted::Exception(14), Outcome::Inject(Exception::DoubleFault)),
        (Interrupted::Exception(13), Outcome::Inject(Exception::DoubleFault)),
        (Interrupted::Exception(8), Outcome::Stop(Stop::TripleFault)),
        (Interrupted::Exception(1), Outcome::Inject(Exception::GeneralProtectionOfEvent)),
        (Interrupted::Interrupt, Outcome::Inject(Exception::GeneralProtectionOfEvent)),
        (Interrupted::Instruction, REFUSED),
    ] {
        bench.cpu.interrupted = Some(event);
        assert_eq!(bench.answer(denied(DATA)).0, outcome, "{event:?}");
    }
}

#[test]
fn the_lock_holds_once_each_cpu_has_called_or_begun_anew() {
    let mut bench = linux(Guard::Data, 3);
    let cpus = bench.machine.host.cpus;
    let mut others: Vec<_> = cpus[1..].iter().map(|cpu| FakeCpu { percpu: cpu, ..FakeCpu::new() }).collect();
    for other in &others {
        bench.machine.locked.enters(other.percpu);
    }
    assert_eq!(lock(&mut bench), [0, 1, 3]);
    assert_eq!(lock(&mut bench), [0, 1, 3], "a second call of the same CPU is not another CPU's");
    runs_linux(&mut others[0]);
    std::mem::swap(&mut bench.cpu, &mut others[0]);
    assert_eq!(lock(&mut bench), [0, 2, 3]);
    assert_eq!(bench.cpu.did, [], "the lock is taken");
    // CPU 2 waits for its start-up IPI, and flushes when it starts.
    std::mem::swap(&mut bench.cpu, &mut others[1]);
    bench.answer(Exit::Init);
    assert_eq!(bench.machine.locked.held_by(cpus), 3);
    assert_eq!(bench.answer(Exit::Sipi(0x9a)).0, Outcome::Startup(0x9a));
    assert_eq!(bench.machine.locked.held_by(cpus), 3);
}

#[test]
fn a_kernel_that_does_not_fit_is_not_locked() {
    type Change = fn(&mut Bench);
    let changes: [(&str, Change); 4] = [
        ("another IDT", |bench| bench.cpu.idtr.base += 0x1000),
        ("an IDT that is not mapped", |bench| bench.cpu.idtr.base = 0),
        ("other page tables", |bench| bench.cpu.controls.cr3 = 0x1000),
        ("data that is no RAM", |bench| bench.machine.ram = RangeSet::from([Hpa(0)..Hpa(0x1_0000)])),
    ];
    for (what, change) in changes {
        let mut bench = linux(Guard::Data, 1);
        change(&mut bench);
        assert_eq!(lock(&mut bench)[0], Status::NotFound as u64, "{what}");
        assert_eq!(access(&bench, DATA), PageAccess::all());
    }
}

#[test]
fn no_device_is_laid_over_locked_data() {
    let mut bench = linux(Guard::Data, 1);
    let write = |bench: &mut Bench, index, value| {
        indexed(index, value).iter().for_each(|(to, value)| bench.cpu.registers.set(*to, *value));
        bench.answer(Exit::Wrmsr).0
    };
    // The local APIC, and the configuration space of one bus, which takes 1 MiB.
    let devices = |page: Gpa| {
        [(APIC_BASE, page.align_down(PAGE_SIZE).0 | 0x900), (MMIO_CFG_BASE, page.align_down(1 << 20).0 | 1)]
    };
    for (index, value) in [DATA, GATE].into_iter().flat_map(devices) {
        assert_eq!(write(&mut bench, index, value), Outcome::Advance, "{index:#x}: nothing is locked yet");
    }
    lock(&mut bench);
    for (index, value) in [DATA, GATE].into_iter().flat_map(devices) {
        assert_eq!(write(&mut bench, index, value), REFUSED, "{index:#x}");
    }
    assert_eq!(write(&mut bench, APIC_BASE, 0xfee0_0900), Outcome::Advance);
}

#[test]
fn nothing_is_watched_before_the_lock() {
    let mut bench = linux(Guard::Audit, 1);
    assert_eq!(call(&mut bench, Call::Audit, 0)[0], Status::NotFound as u64);
    assert_eq!(bench.answer(denied(CODE)), (Outcome::Resume, vec![Action::Flush]));
    let mut bench = linux(Guard::Data, 1);
    lock(&mut bench);
    assert_eq!(call(&mut bench, Call::Audit, 0)[0], Status::Off as u64);
}

#[test]
fn writes_to_code_are_noted_and_let_through() {
    let mut bench = linux(Guard::Audit, 1);
    lock(&mut bench);
    assert_eq!(bench.answer(denied(CODE)), (Outcome::Resume, vec![Action::Flush]));
    assert_eq!(access(&bench, CODE), PageAccess::all());
    let [status, count, last, lost] = call(&mut bench, Call::Audit, 0);
    assert_eq!([status, count, last, lost], [0, 1, in_image(CODE.0), 0]);
    assert_eq!(bench.get(Register::R8), crate::bench::CODE, "the instruction");
    assert!(!access(&bench, CODE).contains(PageAccess::WRITE), "the page is watched again");
    bench.answer(denied(CODE));
    assert_eq!(call(&mut bench, Call::Audit, 1)[..2], [0, 0], "both writes have one row");
    assert_eq!(access(&bench, CODE), PageAccess::all(), "only the first row has all pages watched again");
    assert_eq!(call(&mut bench, Call::Audit, 0)[1], 2);
    assert_eq!(call(&mut bench, Call::Audit, 32)[0], Status::BadArgument as u64);
    assert_eq!(TEXT, in_image(IMAGE_AT));
}
