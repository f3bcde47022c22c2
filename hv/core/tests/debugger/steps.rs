//! Steps by RFLAGS.TF that end in a handler, which leave the flag on the guest's stack.

use vidar_core::debugger::cpus::Reason;
use vidar_core::debugger::debuggable::GuestException;
use vidar_core::debugger::observer::Debugger;
use vidar_core::vmm::exit::Exit;
use vidar_core::vmm::observer::Observer;

use crate::bench::Bench;
use crate::cpu::{SINGLE_STEP, SteppingCpu};

/// A #DB after an instruction that was executed with RFLAGS.TF.
const TRAPPED: Exit = Exit::Unknown { code: 0, qualification: SINGLE_STEP };

/// A debugger on one CPU.
struct Stepped {
    bench: Bench,
    debugger: Debugger,
    cpu: SteppingCpu,
}

impl Stepped {
    /// Returns a CPU at `rip` that makes a step there for gdb.
    fn at(rip: u64) -> Self {
        let bench = Bench::with_cpus(1);
        let desk = Box::leak(Box::new(bench.desk.clone()));
        let mut stepped = Self { bench, debugger: Debugger::new(desk, 0, true), cpu: SteppingCpu::at(rip) };
        stepped.bench.wire.ask("qSupported:swbreak+;hwbreak+");
        stepped.goes_on("vCont;s:1");
        assert!(stepped.cpu.traps());
        stepped
    }

    /// Has gdb send this request, which has the CPU go on that stops before its next entry.
    fn goes_on(&mut self, request: &str) {
        self.bench.wire.ask(request);
        self.debugger.before_entry(&mut self.cpu);
    }

    /// An interrupt comes before the instruction that is to be stepped, and its handler is at `rip`. gdb stops it
    /// there.
    fn is_interrupted(&mut self, rip: u64, request: &str) {
        self.cpu.is_at(rip, false);
        self.bench.wire.type_raw(&[3]);
        self.goes_on(request);
    }

    /// A handler returns and loads RFLAGS.TF, and the instruction is executed that was interrupted. RIP is `rip` then.
    fn traps_at(&mut self, rip: u64) {
        self.cpu.is_at(rip, true);
        self.debugger.after_exit(&mut self.cpu, &TRAPPED);
    }
}

#[test]
fn each_flag_that_is_left_on_a_stack_is_taken_out_when_it_comes_back() {
    let mut stepped = Stepped::at(0x10);
    stepped.is_interrupted(0x20, "vCont;s:1");
    stepped.is_interrupted(0x30, "vCont;c");
    assert!(!stepped.cpu.traps());
    for rip in [0x21, 0x11] {
        stepped.traps_at(rip);
        assert!(!stepped.cpu.traps());
        assert_eq!(stepped.cpu.delivered, [], "the guest has not stepped itself");
    }
    stepped.traps_at(0x14);
    assert_eq!(stepped.cpu.delivered, [GuestException::Debug], "this time it has");
}

#[test]
fn a_flag_that_has_come_back_is_not_the_guests_own_when_gdb_stops_it_there() {
    let mut stepped = Stepped::at(0x10);
    stepped.is_interrupted(0x20, "vCont;c");
    // The handler has returned, and the next instruction has not been executed yet.
    stepped.cpu.is_at(0x10, true);
    stepped.bench.wire.type_raw(&[3]);
    stepped.bench.wire.ask("p11");
    stepped.goes_on("vCont;s:1");
    stepped.bench.wire.hear("$02000000#");
    stepped.bench.wire.ask("vCont;c");
    stepped.traps_at(0x11);
    stepped.bench.wire.hear("$T05thread:01;#");
    assert!(!stepped.cpu.traps());
    assert_eq!(stepped.cpu.delivered, []);
}

/// Has gdb stop the boot CPU alone, set a hardware breakpoint, and go on.
fn set_breakpoint(bench: &Bench) {
    let boot = bench.stop(0, 0x10, Some(Reason::Start));
    bench.connect();
    bench.wire.ask("Z1,24,1");
    bench.wire.hear("$OK#");
    bench.wire.ask("vCont;c");
    boot.join().unwrap();
}

#[test]
fn a_cpu_that_has_waited_for_its_startup_ipi_has_the_breakpoints_that_were_set_meanwhile() {
    let bench = Bench::with_cpus(2);
    let desk = Box::leak(Box::new(bench.desk.clone()));
    let (mut debugger, mut cpu) = (Debugger::new(desk, 1, false), SteppingCpu::at(0x20));
    debugger.before_entry(&mut cpu);
    debugger.after_exit(&mut cpu, &Exit::Init);
    debugger.before_entry(&mut cpu);
    let none = *cpu.controls_loaded.last().unwrap();
    set_breakpoint(&bench);
    debugger.after_exit(&mut cpu, &Exit::Sipi(0x9a));
    debugger.before_entry(&mut cpu);
    assert_ne!(*cpu.controls_loaded.last().unwrap(), none);
}

#[test]
fn a_cpu_that_gdb_could_not_stop_has_the_breakpoints_at_its_next_entry_and_loses_them_with_gdb() {
    let bench = Bench::with_cpus(2);
    let desk = Box::leak(Box::new(bench.desk.clone()));
    let (mut debugger, mut cpu) = (Debugger::new(desk, 1, false), SteppingCpu::at(0x20));
    debugger.before_entry(&mut cpu);
    let none = *cpu.controls_loaded.last().unwrap();
    debugger.before_entry(&mut cpu);
    assert_eq!(cpu.controls_loaded.len(), 1, "nothing has changed");
    set_breakpoint(&bench);
    debugger.before_entry(&mut cpu);
    assert_ne!(*cpu.controls_loaded.last().unwrap(), none);
    let boot = bench.stop(0, 0x10, Some(Reason::Start));
    bench.wire.ask("D");
    boot.join().unwrap();
    debugger.before_entry(&mut cpu);
    assert_eq!(*cpu.controls_loaded.last().unwrap(), none);
}
