//! NMIs while gdb may debug the guest: the line's, and the guest's own.

use vidar_core::debugger::cpus::{Reason, Run};
use vidar_core::debugger::desk::{Desk, Line};
use vidar_core::debugger::observer::Debugger;
use vidar_core::vmm::exit::Exit;
use vidar_core::vmm::observer::Observer;
use vidar_core::vmm::vcpu::Vcpu;

use crate::bench::Bench;
use crate::cpu::{NMI, SteppingCpu};

fn desk(bench: &Bench) -> &'static Desk {
    Box::leak(Box::new(bench.desk.clone()))
}

#[test]
fn an_nmi_is_the_guests_unless_gdb_has_sent_something_to_the_boot_cpu() {
    let bench = Bench::with_cpus(2);
    assert!(bench.desk.listen());
    let exit = Exit::Unknown { code: NMI, qualification: 0 };
    for (index, passed) in [(0, 0), (1, 1)] {
        let (mut debugger, mut cpu) = (Debugger::new(desk(&bench), index, false), SteppingCpu::at(0x10));
        debugger.after_exit(&mut cpu, &exit);
        assert_eq!(cpu.nmis, 1, "nothing has been received");
        bench.wire.type_raw(&[3]);
        debugger.after_exit(&mut cpu, &exit);
        assert_eq!(cpu.nmis, 1 + passed, "CPU {index}");
        assert!(!cpu.percpu().is_rung());
        bench.wire.receive();
    }
    bench.wire.silence();
    let (mut debugger, mut cpu) = (Debugger::new(desk(&bench), 0, false), SteppingCpu::at(0x10));
    debugger.after_exit(&mut cpu, &exit);
    assert_eq!(cpu.nmis, 0, "another CPU has taken what was received");
}

#[test]
fn what_gdb_sends_comes_as_an_nmi_only_while_no_cpu_talks_to_gdb() {
    let bench = Bench::with_cpus(2);
    bench.slots[0].lock().run = Run::Absent;
    assert!(bench.desk.listen() && bench.wire.listens());
    let other = bench.stop(1, 0x30, Some(Reason::Interrupt));
    bench.connect();
    // The boot CPU has not noticed this, and is about to enter the guest.
    assert!(!bench.desk.listen(), "the boot CPU would enter the guest while it is to stop");
    assert!(!bench.wire.listens(), "the boot CPU would get NMIs of bytes that the other CPU takes");
    bench.wire.ask("D");
    other.join().unwrap();
    assert!(bench.desk.listen() && bench.wire.listens());
}
