//! INIT, start-up IPIs, and the local APIC on machines whose CPUs Vidar starts for the guest.

use vidar_core::mem::addr::{Gpa, PAGE_SIZE};
use vidar_core::mem::mtrr::{IA32_MTRR_DEF_TYPE, MemoryType};
use vidar_core::vmm::doubt::PATIENCE;
use vidar_core::vmm::exit::Exit;
use vidar_core::vmm::machine::Startup;
use vidar_core::vmm::outcome::{Exception, Interrupted, Outcome, Stop};
use vidar_core::vmm::waiting;
use vidar_core::x86::icr::{Destination, Message, Mode, register};
use vidar_core::x86::msr::{APIC_BASE, X2APIC_ICR};
use vidar_core::x86::registers::Register::Rax;

use crate::bench::{Action, Bench, INSTRUCTION, warnings};
use crate::{APIC, FAR, REFUSED, denied, indexed, touch};

const EMULATED: Startup<()> = Startup::Emulated { room: Some(0x9e) };
const INIT: u32 = 0x4500;
const STARTUP: u32 = 0x069a;

/// Returns a bench whose guest is about to execute `mov [APIC + offset], eax`.
fn writing(offset: u16, value: u32, startup: Startup<()>) -> (Bench, Exit) {
    let mut bench = Bench::with_others(&[1, 5], startup);
    store(&mut bench, value);
    bench.answer(touch(APIC));
    (bench, denied(APIC + u64::from(offset)))
}

fn store(bench: &mut Bench, value: u32) {
    INSTRUCTION.set([0x3e, 0xa3, 0, 3, 0xe0, 0xfe, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    bench.cpu.registers.set(Rax, 0xffff_ffff_0000_0000 | u64::from(value));
}

fn send(bench: &mut Bench, value: u32, to: u8) -> Vec<Action> {
    store(bench, value);
    bench.cpu.apic.insert(register::ICR_HIGH, u32::from(to) << 24);
    let (outcome, did) = bench.answer(denied(APIC + u64::from(register::ICR_LOW)));
    assert_eq!(outcome, Outcome::Skip(6));
    did
}

#[test]
fn other_registers_of_the_apic_are_simply_written() {
    for offset in [0xb0, 0x380, register::LOGICAL_DESTINATION] {
        let (mut bench, exit) = writing(offset, 0x1234_5678, EMULATED);
        assert_eq!(bench.answer(exit), (Outcome::Skip(6), vec![Action::WriteApic(offset, 0x1234_5678)]));
    }
}

/// The CPU may take such a store for one to the register, and so it could send what Vidar has not seen.
#[test]
fn a_store_that_is_not_to_the_start_of_a_register_writes_nothing() {
    for offset in (0..0x1000).filter(|offset| offset % 16 != 0) {
        let (mut bench, exit) = writing(offset, INIT, EMULATED);
        assert_eq!(bench.answer(exit), (REFUSED, vec![]), "{offset:#x}");
    }
}

#[test]
fn a_register_can_be_changed_where_it_is() {
    let (mut bench, exit) = writing(0xf0, 0, EMULATED);
    // or dword ptr [APIC + 0xf0], 0x100
    INSTRUCTION.set([0x81, 0x0d, 0xf0, 0, 0xe0, 0xfe, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
    bench.cpu.apic.insert(0xf0, 0xff);
    let did = vec![Action::SetFlags(0x8d5, 4), Action::WriteApic(0xf0, 0x1ff)];
    assert_eq!(bench.answer(exit), (Outcome::Skip(10), did));
}

#[test]
fn interrupts_are_sent_as_they_are() {
    let (mut bench, _) = writing(0, 0, EMULATED);
    for icr in [0x40fd, 0xc_00f6, 0x0400] {
        assert_eq!(send(&mut bench, icr, 1), [Action::WriteApic(register::ICR_LOW, icr)], "{icr:#x}");
    }
}

#[test]
fn a_cpu_is_called_for_what_is_sent_to_it() {
    let (mut bench, _) = writing(0, 0, EMULATED);
    let target = bench.machine.host.cpus[2];
    let called = [Action::Send(Message::Nmi, Destination::Physical(5))];
    assert_eq!(send(&mut bench, STARTUP, 5), [], "it runs");
    assert_eq!(send(&mut bench, INIT, 5), called);
    assert_eq!(send(&mut bench, STARTUP, 5), [], "the call has not arrived");
    assert_eq!(send(&mut bench, INIT, 5), called, "it may have been lost");
    assert_eq!(send(&mut bench, 0x8500, 5), [], "de-assert");
    assert!(target.startup.arrived());
    assert_eq!(send(&mut bench, INIT, 5), [], "it waits already");
    assert_eq!(send(&mut bench, STARTUP, 5), called);
    assert_eq!(send(&mut bench, STARTUP | 1, 5), [], "the first decides");
    assert!(target.startup.arrived());
    assert_eq!(target.startup.take(), Some(0x9a));
    assert_eq!(send(&mut bench, STARTUP, 5), [], "it runs again");
}

/// The number of the page in which CPUs wait.
const ROOM: u8 = 0x9e;

/// Returns a bench of the second CPU.
fn second() -> Bench {
    let mut bench = Bench::with_others(&[1], EMULATED);
    bench.cpu.percpu = bench.machine.host.cpus[1];
    bench
}

/// Has the CPU wait while its exits are those of `script`.
fn wait(bench: &mut Bench, script: &[Exit]) -> (Result<(), (Stop, Exit)>, Vec<Action>) {
    bench.cpu.script = script.iter().copied().collect();
    let waited = waiting::wait(&mut bench.cpu, &bench.machine, ROOM);
    (waited, std::mem::take(&mut bench.cpu.did))
}

#[test]
fn a_cpu_that_waits_runs_nothing_but_the_room_until_it_is_started() {
    let mut bench = second();
    let startup = &bench.cpu.percpu.startup;
    startup.wait();
    bench.cpu.percpu.set_logical_destination(0x0200_0000);
    assert!(startup.startup(0x9a));
    // The vector counts only once the call has arrived.
    let script = [Exit::Nmi, Exit::Cpuid, Exit::TripleFault, touch(FAR), Exit::Init];
    let (waited, did) = wait(&mut bench, &script);
    assert_eq!(waited, Ok(()));
    let again = [Action::Init, Action::WaitAt(ROOM), Action::Run];
    let starts = [Action::Init, Action::Startup(0x9a), Action::Flush];
    assert_eq!(did, [&again.repeat(script.len())[..], &starts].concat());
    assert!(bench.cpu.percpu.address().answers(Destination::Physical(1), false));
    assert!(!bench.cpu.percpu.address().answers(Destination::LogicalXApic(2), false));
}

#[test]
fn a_start_up_ipi_that_has_come_before_the_cpu_waits_starts_it_at_once() {
    let mut bench = second();
    let startup = &bench.cpu.percpu.startup;
    assert!(startup.init());
    assert!(!startup.startup(0x12));
    assert_eq!(bench.answer(Exit::Init).0, Outcome::Stop(Stop::Init));
    assert_eq!(wait(&mut bench, &[]).1, [Action::Init, Action::Startup(0x12), Action::Flush]);
}

#[test]
fn an_init_that_no_local_apic_has_sent_has_a_cpu_wait_if_it_can_be_taken_off() {
    for (takes_init, stop) in [(true, Stop::Init), (false, Stop::InitPending)] {
        let mut bench = second();
        bench.cpu.takes_init = takes_init;
        assert_eq!(bench.answer(Exit::Init).0, Outcome::Stop(stop));
        assert!(bench.cpu.percpu.startup.is_waiting());
    }
    let mut bench = second();
    bench.cpu.percpu.startup.wait();
    bench.cpu.takes_init = false;
    assert_eq!(wait(&mut bench, &[Exit::Init]).0, Err((Stop::InitPending, Exit::Init)));
    bench.cpu.stop_is_wanted = true;
    assert_eq!(wait(&mut bench, &[]).0, Err((Stop::Elsewhere, Exit::Init)));
}

/// What the CPU has cached of the second stage is older than a change of rights while it waited.
#[test]
fn a_cpu_that_waits_counts_as_one_that_has_flushed() {
    let mut bench = second();
    let percpu = bench.cpu.percpu;
    bench.machine.locked.enters(percpu);
    bench.machine.locked.changes();
    assert!(!percpu.flushed.is_after(1));
    percpu.startup.wait();
    assert_eq!(
        wait(&mut bench, &[Exit::EntryFailed { code: 1, qualification: 2 }]).0.unwrap_err().0,
        Stop::EntryFailed
    );
    assert!(percpu.flushed.is_after(1));
}

#[test]
fn a_cpu_that_is_not_vidars_is_left_alone() {
    let (mut bench, _) = writing(0, 0, EMULATED);
    for icr in [INIT, STARTUP] {
        assert_eq!(send(&mut bench, icr, 3), []);
    }
    let all_others = [1, 5].map(|id| Action::Send(Message::Nmi, Destination::Physical(id)));
    assert_eq!(send(&mut bench, INIT | 0xc_0000, 0), all_others);
}

#[test]
fn the_boot_cpu_waits_for_nothing_after_an_init() {
    let (mut bench, _) = writing(0, 0, EMULATED);
    let called = [Action::Send(Message::Nmi, Destination::Physical(0))];
    for _ in 0..2 {
        assert_eq!(send(&mut bench, INIT, 0), called);
        assert_eq!(bench.answer(Exit::Init).0, Outcome::Init);
        assert_eq!(send(&mut bench, STARTUP, 0), []);
    }
}

#[test]
fn logical_destinations_are_those_that_the_guest_wrote() {
    let (mut bench, _) = writing(0, 0, EMULATED);
    bench.machine.host.cpus[1].set_logical_destination(0x0200_0000);
    assert_eq!(send(&mut bench, INIT | 1 << 11, 2), [Action::Send(Message::Nmi, Destination::Physical(1))]);
    assert_eq!(send(&mut bench, INIT | 1 << 11, 4), []);
}

/// Instructions that Vidar does not take for a store that it knows: other bytes, and a store of RSP.
const UNKNOWN: [[u8; 16]; 2] = [[0x0f; 16], [0x89, 0x25, 0, 3, 0xe0, 0xfe, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]];

#[test]
fn unknown_store_is_refused_after_some_retries() {
    for bytes in UNKNOWN {
        let (mut bench, exit) = writing(register::ICR_LOW, INIT, EMULATED);
        INSTRUCTION.set(bytes);
        for _ in 0..2 {
            for _ in 1..PATIENCE {
                assert_eq!(bench.answer(exit), (Outcome::Resume, vec![Action::Flush]));
            }
            assert_eq!(bench.answer(exit), (REFUSED, vec![]));
        }
    }
}

#[test]
fn a_store_whose_bytes_another_cpu_changes_is_executed_again() {
    for bytes in UNKNOWN {
        let (mut bench, exit) = writing(0xb0, 0, EMULATED);
        for round in 0..2 * PATIENCE {
            INSTRUCTION.set(bytes);
            assert_eq!(bench.answer(exit), (Outcome::Resume, vec![Action::Flush]), "{round}");
            store(&mut bench, round);
            assert_eq!(bench.answer(exit), (Outcome::Skip(6), vec![Action::WriteApic(0xb0, round)]));
        }
    }
}

#[test]
fn store_is_carried_out_if_the_apic_is_not_at_its_page() {
    for mode in [None, Some(Mode::X2Apic)] {
        let (mut bench, exit) = writing(register::ICR_LOW, INIT, EMULATED);
        bench.cpu.apic_mode = mode;
        let written = vec![Action::WriteApic(register::ICR_LOW, INIT)];
        assert_eq!(bench.answer(exit), (Outcome::Skip(6), written));
    }
}

#[test]
fn writes_to_the_x2apic_icr_are_sent_as_messages() {
    let msr = |value: u64, mode, startup| {
        let mut bench = Bench::with_others(&[1, 5], startup);
        bench.cpu.apic_mode = Some(mode);
        bench.cpu.msrs.insert(X2APIC_ICR, 0);
        indexed(X2APIC_ICR, value).iter().for_each(|(to, value)| bench.cpu.registers.set(*to, *value));
        bench.answer(Exit::Wrmsr)
    };
    let init = 5 << 32 | u64::from(INIT);
    let sent = vec![Action::Send(Message::Nmi, Destination::Physical(5))];
    assert_eq!(msr(init, Mode::X2Apic, EMULATED), (Outcome::Advance, sent));
    assert_eq!(msr(init | 1 << 12, Mode::X2Apic, EMULATED), (REFUSED, vec![]));
    for (value, mode, startup) in [
        (0x40fd, Mode::X2Apic, EMULATED),
        (init, Mode::XApic, EMULATED),
        (init, Mode::X2Apic, Startup::Hardware(())),
    ] {
        assert_eq!(msr(value, mode, startup), (Outcome::Advance, vec![Action::Wrmsr(X2APIC_ICR, value)]));
    }
}

#[test]
fn the_watched_page_stays_where_it_is() {
    for (base, startup, expected) in [
        (0xfee0_0800, EMULATED, Outcome::Advance),
        (0xfee0_0c00, EMULATED, Outcome::Advance),
        (0xfed0_0800, EMULATED, REFUSED),
        (0xfed0_0800, Startup::Hardware(()), Outcome::Advance),
    ] {
        let mut bench = Bench::with_others(&[1], startup);
        indexed(APIC_BASE, base).iter().for_each(|(to, value)| bench.cpu.registers.set(*to, *value));
        assert_eq!(bench.answer(Exit::Wrmsr).0, expected, "{base:#x}");
    }
}

#[test]
fn init_takes_a_further_cpu_out_of_the_guest_unless_it_can_wait_there() {
    let further = |startup| {
        let mut bench = Bench::with_others(&[1], startup);
        bench.cpu.percpu = bench.machine.host.cpus[1];
        bench.answer(Exit::Init).0
    };
    assert_eq!(further(EMULATED), Outcome::Stop(Stop::Init));
    assert_eq!(further(Startup::Landing), Outcome::Stop(Stop::InitPending), "INIT does not exit there");
    assert_eq!(further(Startup::Hardware(())), Outcome::Init, "it waits in the guest");
}

#[test]
fn with_several_cpus_types_change_and_nothing_is_unmapped() {
    let mut bench = Bench::with_others(&[1], Startup::Hardware(()));
    bench.answer(touch(FAR));
    let pages = bench.pages().len();
    let mut write = |index, value| {
        indexed(index, value).iter().for_each(|(to, value)| bench.cpu.registers.set(*to, *value));
        let (outcome, did) = bench.answer(Exit::Wrmsr);
        assert_eq!(outcome, Outcome::Advance);
        (
            did.contains(&Action::Flush),
            bench.translate(FAR),
            bench.translate(Gpa(0x10_0000)),
            bench.pages().len(),
        )
    };
    let (wb, wt) = (MemoryType::WriteBack, MemoryType::WriteThrough);
    let at = |gpa: Gpa, kind| Some((gpa.identity(), kind));
    let ram = Gpa(0x10_0000);
    assert_eq!(
        write(IA32_MTRR_DEF_TYPE, 0),
        (false, at(FAR, wb), at(ram, wb), pages),
        "switched off for a while"
    );
    assert_eq!(write(IA32_MTRR_DEF_TYPE, 0xc04), (true, at(FAR, wt), at(ram, wt), pages));
    assert_eq!(write(IA32_MTRR_DEF_TYPE, 0xc04), (true, at(FAR, wt), at(ram, wt), pages), "on another CPU");
}

#[test]
fn with_several_cpus_no_table_is_taken_back() {
    let mut bench = Bench::with_others(&[1], Startup::Hardware(()));
    bench.frames(|frames| frames.limit(frames.used()));
    let before = bench.pages();
    let decoy = bench.decoy();
    warnings();
    for slot in 1..512 {
        let address = Gpa(slot << 39 | 0x1234);
        // Two CPUs have touched it at the same time.
        assert_eq!(bench.answer(touch(address)), (Outcome::Resume, vec![]));
        assert_eq!(bench.answer(touch(address)), (Outcome::Resume, vec![]));
        assert_eq!(bench.translate(address), Some((decoy + 0x234, MemoryType::WriteBack)));
        assert_eq!(bench.translate(address + (1 << 30)), Some((decoy + 0x234, MemoryType::WriteBack)));
    }
    assert_eq!(warnings().len(), 1);
    assert!(before.iter().all(|page| bench.translate(page.gpa) == Some((page.hpa, page.memory_type))));
    assert_eq!(bench.frames(|frames| frames.get(decoy)[0x234 / 8]), u64::MAX, "as where no device answers");
    // The MTRRs change, and the pages that are mapped already keep their type.
    indexed(IA32_MTRR_DEF_TYPE, 0xc00).iter().for_each(|(to, value)| bench.cpu.registers.set(*to, *value));
    assert_eq!(bench.answer(Exit::Wrmsr).0, Outcome::Advance);
    assert_eq!(bench.translate(Gpa(1 << 39)), Some((decoy, MemoryType::WriteBack)));
}

#[test]
fn the_watched_page_is_never_filled() {
    let mut bench = Bench::with_others(&[1], EMULATED);
    bench.frames(|frames| frames.limit(frames.used()));
    // The neighbouring pages in the same tables.
    for address in [0xfedf_f000, 0xfee0_1000, 0xfec0_0000, 0xc000_0000].map(Gpa) {
        assert_eq!(bench.answer(touch(address)), (Outcome::Resume, vec![]));
    }
    assert_eq!(bench.translate(APIC).map(|(hpa, _)| hpa), Some(APIC.identity()));
}

#[test]
fn access_denied_by_a_stale_tlb_entry_is_retried() {
    let (mut bench, _) = writing(0, 0, EMULATED);
    for address in [Gpa(0x10_0000), FAR, APIC + PAGE_SIZE] {
        assert_eq!(bench.answer(denied(address)), (Outcome::Resume, vec![Action::Flush]));
    }
}

#[test]
fn the_id_of_the_apic_stays() {
    let (mut bench, exit) = writing(register::ID, 5 << 24, EMULATED);
    assert_eq!(bench.answer(exit), (Outcome::Skip(6), vec![]));
}

#[test]
fn an_access_by_the_delivery_of_an_event_is_refused_as_a_cpu_does() {
    let (mut bench, exit) = writing(0xb0, 0, EMULATED);
    for exit in [exit, denied(APIC + 0x8), touch(Gpa(1 << 48))] {
        for (vector, expected) in [
            (8, Outcome::Stop(Stop::TripleFault)),
            (13, Outcome::Inject(Exception::DoubleFault)),
            (6, Outcome::Inject(Exception::GeneralProtectionOfEvent)),
        ] {
            bench.cpu.interrupted = Some(Interrupted::Exception(vector));
            assert_eq!(bench.answer(exit), (expected, vec![]), "{vector} {exit:?}");
        }
    }
}
