//! A guest that looks for gdb's serial port, while gdb uses it.

use anyhow::{Result, ensure};

use super::debugged::Test;
use super::probe;
use super::rounds::RIP;
use crate::console::ANSWER;
use crate::remote::{INTERRUPT, Remote, TRAP};
use crate::test::Tools;
use crate::test::lane::Lane;

/// How often gdb stops the guest.
const STOPS: u32 = 10;

/// The lengths of the instructions with which the second CPU looks for the port: MOV, IN, MOV, MOV, OUT, MOV, OUT.
const LENGTHS: [u64; 7] = [2, 1, 2, 2, 1, 2, 1];

/// What the guest finds: nothing is at the ports, and it gets no NMI.
const WORDS: &str = "started=1 looked=1 nmis=0 bytes=ff words=ffffffff/ffffffff strings=#GP(0)/#GP(0)";

/// Stops the probe, whose second CPU looks for the serial port all the time, as Linux does at its start. Checks that
/// neither of the two notices the other.
pub fn hidden(test: &Test, lane: Lane, tools: &Tools) -> Result<()> {
    let (mut booted, relay, said) = probe::boot(test.name, lane, "gdb-port", "looking: ", tools)?;
    let look = u64::from_str_radix(said.trim(), 16)?;
    let mut remote = Remote::open(&format!("127.0.0.1:{}", relay.port()))?;
    for _ in 0..STOPS {
        remote.go_on()?;
        remote.interrupt()?;
        let stop = remote.stopped()?;
        ensure!(stop.signal == INTERRUPT, "Ctrl-C should have stopped the guest: {stop:?}");
    }
    steps(&mut remote, look)?;
    remote.leave()?;
    booted.console.press("x")?;
    booted.console.expect("probe gdb-port: ", ANSWER)?;
    let said = booted.console.expect("\r\n", ANSWER)?;
    ensure!(said.trim() == WORDS, "the guest finds {said:?}, and should find {WORDS:?}");
    Ok(())
}

/// Stops the second CPU at `look`, where it looks for the port, and has it make a step for each instruction there.
fn steps(remote: &mut Remote, look: u64) -> Result<()> {
    remote.set_breakpoint(look, true)?;
    remote.go_on()?;
    let stop = remote.stopped()?;
    ensure!(stop.signal == TRAP && stop.thread == 2, "the breakpoint should have stopped CPU 1: {stop:?}");
    remote.set_breakpoint(look, false)?;
    let mut at = look;
    for length in LENGTHS {
        remote.step(2)?;
        let stepped = remote.stopped()?;
        let rip = remote.cpu(2)?.general[RIP];
        at += length;
        ensure!(stepped == stop && rip == at, "a step has led to {rip:#x}, not to {at:#x}: {stepped:?}");
    }
    Ok(())
}
