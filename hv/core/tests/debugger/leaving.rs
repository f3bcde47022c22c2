//! Stops of which gdb is not told, since it has left or has not come yet.

use std::thread;
use std::time::{Duration, Instant};

use vidar_core::debugger::cpus::Reason;

use crate::bench::{Bench, PATIENCE};

#[test]
fn a_guest_that_crashes_when_gdb_has_left_goes_on_to_its_end() {
    let (bench, cpu) = Bench::connected();
    // The CPU has decided to stop, and gdb leaves before it does.
    assert!(bench.desk.is_attached());
    bench.wire.ask("D");
    cpu.join().unwrap();
    assert!(!bench.desk.is_attached());
    let (crashed, begun) = (bench.stop(0, 0x20, Some(Reason::Crash)), Instant::now());
    while !crashed.is_finished() {
        assert!(begun.elapsed() < PATIENCE, "the CPU waits for a gdb that is gone");
        thread::yield_now();
    }
    assert!(!crashed.join().unwrap().steps);
}

#[test]
fn a_guest_that_waits_for_gdb_at_its_start_waits_without_being_attached() {
    let bench = Bench::with_cpus(1);
    let cpu = bench.stop(0, 0x10, Some(Reason::Start));
    thread::sleep(Duration::from_millis(10));
    assert!(!cpu.is_finished() && !bench.desk.is_attached());
    bench.connect();
    assert!(bench.desk.is_attached());
    bench.wire.ask("D");
    cpu.join().unwrap();
}
