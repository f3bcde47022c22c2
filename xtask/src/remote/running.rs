//! How the machine is stopped, and goes on.

use anyhow::{Context, Result, bail, ensure};

use super::{DAMAGED, REPEATS, Received, Remote};

/// The byte that stands for Ctrl-C, outside of any packet.
const CTRL_C: u8 = 3;
/// The signal of a machine that Ctrl-C has stopped: SIGINT.
pub const INTERRUPT: u8 = 2;
/// The signal of a machine that has come to a breakpoint, or has executed the instruction that it was to execute:
/// SIGTRAP.
pub const TRAP: u8 = 5;

/// Why the machine has stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stop {
    /// The signal.
    pub signal: u8,
    /// The thread that stands for the CPU that has stopped first.
    pub thread: u32,
}

impl Remote {
    /// Has all CPUs go on.
    pub fn go_on(&mut self) -> Result<()> {
        self.order("vCont;c")
    }

    /// Has one CPU execute one instruction. The others stay stopped.
    pub fn step(&mut self, thread: u32) -> Result<()> {
        self.order(&format!("vCont;s:{thread:x}"))
    }

    /// Presses Ctrl-C, while the machine runs.
    pub fn interrupt(&mut self) -> Result<()> {
        Ok(self.line.send(&[CTRL_C])?)
    }

    /// Waits until the machine has stopped.
    pub fn stopped(&mut self) -> Result<Stop> {
        let Received::Packet(answer) = self.receive()? else { bail!("{DAMAGED}") };
        stop_in(&answer).with_context(|| format!("the debugger does not say why the machine stops: {answer}"))
    }

    /// Sets a hardware breakpoint, or removes it.
    pub fn set_breakpoint(&mut self, address: u64, on: bool) -> Result<()> {
        let answer = self.ask(&format!("{}1,{address:x},1", if on { 'Z' } else { 'z' }))?;
        ensure!(answer == "OK", "the debugger does not change the breakpoint at {address:#x}: {answer}");
        Ok(())
    }

    /// Sends a packet whose answer comes when the machine stops.
    fn order(&mut self, contents: &str) -> Result<()> {
        for _ in 0..REPEATS {
            if self.say(contents)? {
                return Ok(());
            }
        }
        bail!("{DAMAGED}")
    }
}

/// Returns what a packet says of a machine that has stopped, such as `T05thread:2;hwbreak:;`.
fn stop_in(answer: &str) -> Option<Stop> {
    let (signal, pairs) = answer.strip_prefix('T')?.split_at_checked(2)?;
    let thread = pairs.split(';').find_map(|pair| pair.strip_prefix("thread:"))?;
    Some(Stop { signal: u8::from_str_radix(signal, 16).ok()?, thread: u32::from_str_radix(thread, 16).ok()? })
}

#[cfg(test)]
mod tests {
    use super::super::packet;
    use super::super::tests::{answer, remote};
    use super::*;

    #[test]
    fn a_machine_goes_on_and_stops() {
        let acknowledged = || b"+".to_vec();
        let mut remote = remote([
            (packet("Z1,ffff8000,1"), answer("OK")),
            (packet("vCont;c"), b"-".to_vec()),
            (packet("vCont;c"), [&acknowledged()[..], &packet("T05thread:0b;hwbreak:;")].concat()),
            (packet("z1,ffff8000,1"), answer("OK")),
            (packet("vCont;s:b"), acknowledged()),
            (vec![CTRL_C], packet("T02thread:1;")),
        ]);
        remote.set_breakpoint(0xffff_8000, true).unwrap();
        remote.go_on().unwrap();
        assert_eq!(remote.stopped().unwrap(), Stop { signal: TRAP, thread: 11 });
        remote.set_breakpoint(0xffff_8000, false).unwrap();
        remote.step(11).unwrap();
        remote.interrupt().unwrap();
        assert_eq!(remote.stopped().unwrap(), Stop { signal: INTERRUPT, thread: 1 });
    }

    #[test]
    fn a_machine_that_has_ended_has_not_stopped() {
        for said in ["W00", "T0", "T05", "T05thread:;", "OK", "S05"] {
            assert_eq!(stop_in(said), None, "{said}");
        }
    }
}
