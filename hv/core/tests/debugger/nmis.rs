//! NMIs while gdb may debug the guest: the line's, and the guest's own.

use vidar_core::debugger::cpus::{Reason, Run};
use vidar_core::debugger::desk::Line;
use vidar_core::debugger::observer::Debugger;
use vidar_core::vmm::exit::Exit;
use vidar_core::vmm::observer::Observer;
use vidar_core::vmm::vcpu::Vcpu;

use crate::bench::Bench;
use crate::cpu::{NMI, SteppingCpu};

#[test]
fn an_nmi_is_the_guests_unless_gdb_has_sent_something_to_the_boot_cpu() {
    let bench = Bench::with_cpus(2);
    let exit = Exit::Unknown { code: NMI, qualification: 0 };
    for (index, passed) in [(0, 0), (1, 1)] {
        let desk = Box::leak(Box::new(bench.desk.clone()));
        let (mut debugger, mut cpu) = (Debugger::new(desk, index, false), SteppingCpu::at(0x10));
        debugger.after_exit(&mut cpu, &exit);
        assert_eq!(cpu.nmis, 1, "nothing has been received");
        bench.wire.type_raw(&[3]);
        debugger.after_exit(&mut cpu, &exit);
        assert_eq!(cpu.nmis, 1 + passed, "CPU {index}");
        assert!(!cpu.percpu().is_rung());
        bench.wire.receive();
    }
}

#[test]
fn what_gdb_sends_comes_as_an_nmi_only_while_no_cpu_talks_to_gdb() {
    let bench = Bench::with_cpus(2);
    bench.slots[0].lock().run = Run::Absent;
    bench.desk.listen();
    assert!(bench.wire.listens());
    let other = bench.stop(1, 0x30, Some(Reason::Interrupt));
    bench.connect();
    // The boot CPU has not noticed this, and is about to enter the guest.
    bench.desk.listen();
    assert!(!bench.wire.listens(), "the boot CPU would get NMIs of bytes that the other CPU takes");
    bench.wire.ask("D");
    other.join().unwrap();
    bench.desk.listen();
    assert!(bench.wire.listens());
}
