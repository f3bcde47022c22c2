//! The debugger as gdb finds it: packets go in over a line, and answers come out, while CPUs stop and go on.

mod bench;
#[path = "../recorded_maps/counting.rs"]
mod counting;
mod cpu;
mod leaving;
mod nmis;
mod steps;

use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use vidar_core::debugger::breakpoints::Int3;
use vidar_core::debugger::cpus::{Reason, Run};
use vidar_core::debugger::registers::RegisterFile;
use vidar_core::policy::control::Controls;

use crate::bench::{Bench, PATIENCE};

#[test]
fn gdb_sees_registers_and_memory_at_the_first_instruction_and_changes_them() {
    let (bench, cpu) = Bench::connected();
    bench.wire.ask("?");
    bench.wire.hear("$T05thread:01;#");
    bench.wire.ask("p10");
    bench.wire.hear("$1000000000000000#");
    bench.wire.ask("P1=8877665544332211");
    bench.wire.hear("$OK#");
    bench.wire.ask("P2b=0100000000000000");
    bench.wire.hear("$E");
    bench.wire.ask("m8,4");
    bench.wire.hear("$90909090#");
    bench.wire.ask("M8,2:abcd");
    bench.wire.hear("$OK#");
    bench.wire.ask("m3c,10");
    assert!(bench.wire.hear("#").contains("$90909090"), "memory ends there");
    bench.wire.ask("m1000,4");
    bench.wire.hear("$E");
    bench.wire.ask("vCont;c");
    let resumed = cpu.join().unwrap();
    assert_eq!(resumed.registers.get(vidar_core::debugger::registers::ORDER[1]), Some(0x1122_3344_5566_7788));
    assert!(!resumed.steps);
    assert_eq!(bench.page.0.lock().unwrap()[8..10], [0xab, 0xcd]);
}

#[test]
fn breakpoints_are_in_memory_and_in_debug_registers_while_the_guest_runs_and_are_gone_after_detaching() {
    let (bench, cpu) = Bench::connected();
    for (request, answer) in
        [("Z0,20,1", "$OK#"), ("Z1,24,1", "$OK#"), ("Z2,28,8", "$OK#"), ("Z0,2000,1", "$E")]
    {
        bench.wire.ask(request);
        bench.wire.hear(answer);
    }
    bench.wire.ask("vCont;c");
    cpu.join().unwrap();
    let whose = |linear| bench.desk.whose_int3(linear, &Controls::default());
    assert_eq!([whose(0x20), whose(0x24)], [Int3::Gdb, Int3::Guest]);
    assert_eq!(bench.page.0.lock().unwrap()[0x20], 0xcc);
    let (registers, has_int3) = bench.desk.armed();
    assert_eq!(registers.map(|registers| registers.addresses), Some([0x24, 0x28, 0, 0]));
    assert!(has_int3 && bench.desk.is_attached());
    let cpu = bench.stop(0, 0x20, Some(Reason::Software));
    bench.wire.hear("$T05thread:01;swbreak:;#");
    bench.wire.ask("D");
    bench.wire.hear("$OK#");
    cpu.join().unwrap();
    assert_eq!(bench.desk.armed(), (None, false));
    assert_eq!(bench.page.0.lock().unwrap()[0x20], 0x90);
    assert!(!bench.desk.is_attached());
}

#[test]
fn ctrl_c_stops_all_cpus_and_a_step_lets_one_of_them_go() {
    let bench = Bench::with_cpus(2);
    let cpu = bench.stop(0, 0x10, Some(Reason::Start));
    let other = bench.stop(1, 0x30, None);
    bench.connect();
    bench.wire.ask("vCont;c");
    assert!(!cpu.join().unwrap().steps && !other.join().unwrap().steps);
    bench.wire.type_raw(&[3]);
    bench.wire.calls.store(0, Ordering::SeqCst);
    let cpu = bench.stop(0, 0x12, None);
    while bench.wire.calls.load(Ordering::SeqCst) == 0 {
        thread::yield_now();
    }
    assert!(bench.desk.halts() && bench.desk.is_attached());
    assert_eq!(bench.wire.calls.load(Ordering::SeqCst), 0b10, "only the other CPU is called");
    let other = bench.stop(1, 0x32, None);
    bench.wire.hear("$T02thread:01;#");
    bench.wire.ask("qfThreadInfo");
    assert!(bench.wire.hear("#").ends_with("$m01,02"));
    bench.wire.ask("Hg2");
    bench.wire.hear("$OK#");
    bench.wire.ask("p10");
    bench.wire.hear("$3200000000000000#");
    bench.wire.ask("vCont;s:2");
    assert!(other.join().unwrap().steps);
    assert_eq!(bench.slots[0].lock().run, Run::Held, "the first CPU waits");
    let other = bench.stop(1, 0x33, Some(Reason::Step));
    bench.wire.hear("$T05thread:02;#");
    bench.wire.ask("vCont;c");
    cpu.join().unwrap();
    other.join().unwrap();
}

#[test]
fn ctrl_c_is_heard_while_gdb_holds_the_cpu_that_looks_for_it() {
    let bench = Bench::with_cpus(2);
    let cpu = bench.stop(0, 0x10, Some(Reason::Start));
    let other = bench.stop(1, 0x30, None);
    bench.connect();
    bench.wire.ask("vCont;c:2");
    other.join().unwrap();
    assert_eq!(bench.slots[0].lock().run, Run::Held);
    bench.wire.type_raw(&[3]);
    let begun = Instant::now();
    while !bench.desk.halts() {
        assert!(begun.elapsed() < PATIENCE, "the CPU that waits does not look");
        thread::yield_now();
    }
    let other = bench.stop(1, 0x32, None);
    bench.wire.hear("$T02thread:01;#");
    bench.wire.ask("D");
    drop((cpu.join(), other.join()));
}

#[test]
fn a_cpu_that_waits_leaves_its_slot_to_the_one_that_talks_to_gdb() {
    let bench = Bench::with_cpus(2);
    let cpu = bench.stop(0, 0x10, Some(Reason::Start));
    bench.connect();
    let other = bench.stop(1, 0x30, None);
    while bench.slots[1].lock().run != Run::Stopped {
        thread::yield_now();
    }
    for look in 0..100 {
        // Where both threads have one CPU, the other one runs meanwhile.
        thread::sleep(Duration::from_millis(1));
        assert!(bench.slots[1].try_lock().is_some(), "the CPU that waits has the lock at look {look}");
    }
    bench.wire.ask("D");
    drop((cpu.join(), other.join()));
}

#[test]
fn a_cpu_that_the_guest_has_switched_off_is_not_the_current_one() {
    let bench = Bench::with_cpus(2);
    let cpu = bench.stop(0, 0x10, None);
    let other = bench.stop(1, 0x30, Some(Reason::Interrupt));
    bench.connect();
    bench.wire.ask("vCont;c");
    drop((cpu.join(), other.join()));
    bench.slots[1].lock().run = Run::Absent;
    bench.wire.type_raw(&[3]);
    let cpu = bench.stop(0, 0x12, None);
    bench.wire.hear("$T02thread:01;#");
    bench.wire.ask("D");
    cpu.join().unwrap();
}

#[test]
fn a_watchpoint_that_another_cpu_hits_meanwhile_is_told_after_the_first() {
    let bench = Bench::with_cpus(2);
    let cpu = bench.stop(0, 0x10, Some(Reason::Start));
    let other = bench.stop(1, 0x30, None);
    bench.connect();
    bench.wire.ask("vCont;c");
    drop((cpu.join(), other.join()));
    let watch = |address| {
        let kind = Some(gdbstub::target::ext::breakpoints::WatchKind::Write);
        Some(Reason::Hardware(vidar_core::debugger::watch::Watch { address, size: 4, kind }))
    };
    bench.slots[1].lock().run = Run::Absent;
    let cpu = bench.stop(0, 0x14, watch(0x28));
    bench.wire.hear("$T05thread:01;watch:28;#");
    let other = bench.stop(1, 0x34, watch(0x2c));
    bench.wire.ask("vCont;c");
    bench.wire.hear("$T05thread:02;watch:2c;#");
    bench.wire.ask("vCont;c");
    drop((cpu.join(), other.join()));
}

#[test]
fn a_cpu_that_is_too_slow_to_leave_is_stopped_again() {
    let bench = Bench::with_cpus(2);
    let cpu = bench.stop(0, 0x10, Some(Reason::Start));
    bench.slots[1].lock().run = Run::Stopped;
    bench.connect();
    bench.wire.ask("vCont;c");
    cpu.join().unwrap();
    assert_eq!(bench.slots[1].lock().run, Run::Released, "the other CPU has not looked yet");
    let cpu = bench.stop(0, 0x14, Some(Reason::Software));
    bench.wire.hear("$T05thread:01;swbreak:;#");
    bench.wire.ask("qfThreadInfo");
    assert!(bench.wire.hear("#").ends_with("$m01,02"));
    bench.wire.ask("D");
    cpu.join().unwrap();
}

#[test]
fn noise_and_spoiled_packets_neither_end_the_conversation_nor_keep_the_guest_stopped() {
    let bench = Bench::with_cpus(1);
    bench.wire.type_raw(b"\xff\x00~");
    bench.stop(0, 0x10, None).join().unwrap();
    let cpu = bench.stop(0, 0x10, Some(Reason::Start));
    bench.wire.type_raw(b"$?#00");
    bench.wire.hear("-");
    bench.connect();
    bench.wire.ask("vCont;c");
    cpu.join().unwrap();
    bench.wire.type_raw(b"+");
    bench.stop(0, 0x10, None).join().unwrap();
    assert!(bench.desk.is_attached(), "gdb still waits for the guest");
    bench.wire.type_raw(b"$m1");
    bench.stop(0, 0x10, None).join().unwrap();
    bench.wire.type_raw(&[3]);
    let cpu = bench.stop(0, 0x10, None);
    bench.wire.hear("$T02");
    bench.wire.ask("D");
    cpu.join().unwrap();
}

#[test]
fn an_answer_that_has_been_spoiled_is_sent_again() {
    let (bench, cpu) = Bench::connected();
    bench.wire.type_raw(b"+");
    bench.wire.ask("p10");
    bench.wire.hear("+$1000000000000000#");
    bench.wire.type_raw(b"-");
    assert_eq!(bench.wire.hear("$1000000000000000#").len(), 2, "the checksum of the first, and nothing else");
    bench.wire.type_raw(b"+");
    bench.wire.ask("vCont;c");
    cpu.join().unwrap();
    let cpu = bench.stop(0, 0x12, Some(Reason::Software));
    bench.wire.hear("$T05thread:01;swbreak:;#");
    bench.wire.type_raw(b"-");
    bench.wire.hear("$T05thread:01;swbreak:;#");
    bench.wire.type_raw(b"+");
    bench.wire.ask("D");
    cpu.join().unwrap();
}

#[test]
fn gdb_is_not_offered_to_leave_out_acknowledgements() {
    let bench = Bench::with_cpus(1);
    let cpu = bench.stop(0, 0x10, Some(Reason::Start));
    bench.wire.ask("qSupported:swbreak+");
    assert!(!bench.wire.hear("#").contains("NoAck"));
    bench.wire.ask("D");
    cpu.join().unwrap();
}

#[test]
fn ctrl_c_is_heard_after_a_request_that_has_come_while_the_guest_ran() {
    let (bench, cpu) = Bench::connected();
    bench.wire.ask("vCont;c");
    cpu.join().unwrap();
    // gdb has not got the acknowledgement, and asks again.
    bench.wire.ask("vCont;c");
    bench.stop(0, 0x10, None).join().unwrap();
    bench.wire.type_raw(&[3]);
    let cpu = bench.stop(0, 0x10, None);
    bench.wire.hear("$T02");
    bench.wire.ask("D");
    cpu.join().unwrap();
}

#[test]
fn a_step_is_one_after_ctrl_c_has_come_twice() {
    let (bench, cpu) = Bench::connected();
    bench.wire.type_raw(&[3]);
    bench.wire.ask("vCont;c");
    bench.wire.hear("$T02");
    bench.wire.ask("qfThreadInfo");
    bench.wire.hear("$m01#");
    bench.wire.ask("vCont;s:1");
    assert!(cpu.join().unwrap().steps);
    let cpu = bench.stop(0, 0x11, Some(Reason::Step));
    bench.wire.hear("$T05");
    bench.wire.ask("D");
    cpu.join().unwrap();
}

#[test]
fn a_request_that_means_nothing_is_answered_and_the_conversation_goes_on() {
    let bench = Bench::with_cpus(1);
    let cpu = bench.stop(0, 0x10, Some(Reason::Start));
    bench.wire.ask("qSupported");
    assert!(bench.wire.hear("#").contains("+$PacketSize=1000;"), "features need not be named");
    bench.wire.ask("Z0,20,1");
    bench.wire.hear("$OK#");
    bench.wire.ask("m");
    bench.wire.hear("+$E01#a6");
    bench.wire.ask("m8,2");
    bench.wire.hear("$9090#");
    assert!(bench.desk.armed().1, "the breakpoint is still there");
    bench.wire.ask("D");
    cpu.join().unwrap();
}

#[test]
fn a_request_that_means_nothing_leaves_gdb_with_what_it_has_chosen() {
    let bench = Bench::with_cpus(2);
    let cpu = bench.stop(0, 0x10, Some(Reason::Start));
    let other = bench.stop(1, 0x30, None);
    bench.wire.ask("qSupported:multiprocess+;swbreak+");
    bench.wire.hear("#");
    while bench.slots.iter().any(|slot| slot.lock().run != Run::Stopped) {
        thread::yield_now();
    }
    for choice in ["Hgp1.2", "Hcp1.2"] {
        bench.wire.ask(choice);
        bench.wire.hear("$OK#9a");
    }
    bench.wire.ask("m");
    bench.wire.hear("+$E01#a6");
    bench.wire.ask("p10");
    assert_eq!(bench.wire.hear("$3000000000000000#"), "+", "nothing of what has been chosen again is told");
    bench.wire.ask("?");
    bench.wire.hear("$T05thread:p01.");
    bench.wire.ask("s");
    assert!(other.join().unwrap().steps, "the thread that was chosen for `s`");
    let other = bench.stop(1, 0x31, Some(Reason::Step));
    bench.wire.hear("$T05");
    bench.wire.ask("D");
    drop((cpu.join(), other.join()));
}

#[test]
fn a_gdb_that_comes_after_another_has_died_finds_a_stopped_guest_without_breakpoints() {
    let (bench, cpu) = Bench::connected();
    for request in ["Z0,20,1", "Z1,24,1"] {
        bench.wire.ask(request);
        bench.wire.hear("$OK#");
    }
    bench.wire.ask("vCont;c");
    cpu.join().unwrap();
    // That one has died while it waited for the guest.
    bench.wire.ask("qSupported:swbreak+;hwbreak+");
    let cpu = bench.stop(0, 0x12, None);
    bench.wire.hear("PacketSize=");
    bench.wire.type_raw(&[3]);
    bench.wire.ask("m8,2");
    assert!(!bench.wire.hear("$9090#").contains("$T"), "nobody waits for the guest to stop");
    assert_eq!((bench.desk.armed(), bench.page.0.lock().unwrap()[0x20]), ((None, false), 0x90));
    bench.wire.ask("D");
    bench.wire.hear("$OK#");
    cpu.join().unwrap();
}

#[test]
fn monitor_commands_answer_in_lines() {
    let (bench, cpu) = Bench::connected();
    let monitor = |command: &str| {
        let digits: String = command.bytes().map(|byte| format!("{byte:02x}")).collect();
        bench.wire.ask(&format!("qRcmd,{digits}"));
        let said = bench.wire.hear("$OK#");
        let lines = said.split("$O").skip(1).map(|line| {
            let digits: Vec<_> = line.split('#').next().unwrap().bytes().collect();
            let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
            String::from_utf8(digits.chunks(2).map(byte).collect()).unwrap()
        });
        lines.collect::<String>()
    };
    assert!(monitor("help").contains("monitor phys ADDR LEN - shows"));
    assert_eq!(monitor("log"), "vidar: hello\n");
    assert_eq!(monitor("phys 0x38 9"), "0x0000000000000038: 90 90 90 90 90 90 90 90 --\n");
    assert_eq!(monitor("phys 0xfffffffffffffffd 16"), "0xfffffffffffffffd: -- --\n", "memory ends there");
    assert_eq!(monitor("stage2 0x1234"), "guest 0x1234 is host 0x1234, in a page of 2 MiB, WriteBack\n");
    assert!(monitor("regs").contains("rip "), "the registers");
    assert_eq!(monitor("vmcs"), "the VMCS of CPU 0 when it stopped:\n  GUEST_RIP 0x10\n  HOST_RIP 0xfe\n");
    assert_eq!(monitor("vmcs host"), "the VMCS of CPU 0 when it stopped:\n  HOST_RIP 0xfe\n");
    assert_eq!(monitor("trace x"), "monitor trace [N]: give a number of exits, such as 20\n");
    assert!(monitor("trace").contains("at 0x1000\nthe last exits of CPU 1, the newest last:\n"));
    assert_eq!(monitor("trace 1").lines().count(), 3, "a heading for each CPU, and one exit of the first");
    assert!(monitor("fly").starts_with("there is no command \"fly\""));
    monitor("reset");
    assert!(bench.around.0.load(Ordering::SeqCst));
    bench.wire.ask("D");
    cpu.join().unwrap();
}

#[test]
fn conversations_that_are_lost_give_their_memory_back() {
    let bench = Bench::with_cpus(1);
    for _ in 0..1000 {
        bench.wire.ask("m"); // a request without what it needs, with which gdbstub cannot go on
    }
    bench.wire.ask("vCont;c");
    let stop = || {
        bench.desk.stop(0, RegisterFile::default(), Some(Reason::Interrupt), &|_| None);
    };
    let most = counting::peak(stop);
    assert!(most < 4096, "{most} bytes");
}
