//! Many rounds of stop and continue, while two CPUs take interrupts. They are made by the client of `cargo xtask dump`,
//! which presses Ctrl-C at any moment, and asks at each stop for what shows that the CPUs have stopped. gdb would ask
//! for much more, over a slow line.

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::debugged::Debugged;
use super::probe;
use crate::console::{ANSWER, BOOT, PROMPT};
use crate::machine::gdb::Relay;
use crate::remote::{INTERRUPT, Remote, Stop, TRAP};
use crate::test::Tools;
use crate::test::lane::Lane;

type Check = fn(Lane, u32, &Tools) -> Result<()>;

/// The names of the tests, which run in both lanes, and their functions, which are given the number of rounds.
pub const ROUNDS: [(&str, Check); 2] = [(LOADED, loaded), (COUNTED, counted)];

const LOADED: &str = "gdb/rounds";
const COUNTED: &str = "gdb/rounds-counted";

/// The threads of the guest's CPUs.
const THREADS: [u32; 2] = [1, 2];
/// The place of RIP among the registers.
pub(super) const RIP: usize = 16;
/// The microseconds for which the guest runs at most before Ctrl-C. They differ by those of a prime number from round
/// to round.
const MOST: u32 = 50_000;
const PRIME: u32 = 7919;

/// What the rounds need of a guest.
struct Places {
    /// The first instruction of a handler of interrupts.
    handler: u64,
    /// Memory that changes while the CPUs run: addresses and numbers of bytes.
    changing: Vec<(u64, usize)>,
}

/// Stops Linux on two CPUs, which are under a load that checks its own results. A timer interrupt that is lost would be
/// the last of its CPU, since its handler starts the timer again, and the load would wait for a lost interrupt between
/// CPUs for good.
fn loaded(lane: Lane, count: u32, tools: &Tools) -> Result<()> {
    let mut debugged = Debugged::boot(LOADED, 2, lane, "gdb=com2", &["stress"], tools)?;
    debugged.console.expect(PROMPT, BOOT)?;
    debugged.console.run("dmesg -n 1; chmod +x /stress")?;
    let before = debugged.interrupts()?;
    // Nobody knows how long the rounds take by the guest's clock, so the load is repeated until they are over.
    debugged
        .console
        .run("(while [ ! -e /enough ]; do /stress 10; done; echo over) >/stress.txt 2>&1 & true")?;
    stop_often(&debugged.relay, count, |remote| {
        let handler = remote.symbol("hrtimer_interrupt")?;
        Ok(Places { handler, changing: vec![(remote.symbol("jiffies_64")?, 8)] })
    })?;
    let between = debugged.interrupts()?;
    debugged.console.run("touch /enough; while ! grep -q over /stress.txt; do sleep 1; done")?;
    let said = debugged.console.run("cat /stress.txt")?;
    let loads = said.lines().filter(|line| line.trim() != "over").collect::<Vec<_>>();
    ensure!(!loads.is_empty(), "no load has run beside the rounds");
    ensure!(loads.iter().all(|load| load.contains("stress: cpus=2 ")), "the load reports {loads:?}");
    // The load runs by the guest's clock, which goes on while the guest is stopped: one of them may have got no time.
    ensure!(loads.iter().any(|load| !load.contains("=0")), "parts of the load did nothing: {loads:?}");
    let after = debugged.interrupts()?;
    let ticks =
        |after: &[u64], before: &[u64]| after.iter().zip(before).all(|(after, before)| after > before);
    ensure!(
        ticks(&between, &before) && ticks(&after, &between),
        "a CPU gets no timer interrupts any more: {before:?}, {between:?}, then {after:?}"
    );
    debugged.runs_on()
}

/// Stops the probe on two CPUs, which counts its interrupts one by one: those that the first CPU sends itself and the
/// second, and those of the timer.
fn counted(lane: Lane, count: u32, tools: &Tools) -> Result<()> {
    let (mut booted, relay, said) = probe::boot(COUNTED, lane, "counted", "counted: ", tools)?;
    let addresses: Vec<_> = said.split(' ').filter_map(|word| u64::from_str_radix(word, 16).ok()).collect();
    let [handler, here, there] = addresses[..] else { anyhow::bail!("the probe says {said:?}") };
    stop_often(&relay, count, |_| Ok(Places { handler, changing: vec![(here, 12), (there, 4)] }))?;
    booted.console.press("x")?;
    booted.console.expect("probe counted: started=1 ", ANSWER)?;
    let said = booted.console.expect("\r\n", ANSWER)?;
    let kinds: Vec<_> = said.split_whitespace().filter_map(|item| item.split_once('=')).collect();
    let none_wrong = |counts: &str| counts.ends_with("/0/0") && !counts.starts_with('0');
    ensure!(
        kinds.len() == 3 && kinds.iter().all(|(_, counts)| none_wrong(counts)),
        "of some interrupts not each came once; raised, lost and doubled are: {said}"
    );
    Ok(())
}

/// Stops the guest `count` times and has it go on: by Ctrl-C, and then at the handler in which it takes the next
/// interrupt, in turns. In the end it runs on without the debugger.
fn stop_often(relay: &Relay, count: u32, find: impl FnOnce(&mut Remote) -> Result<Places>) -> Result<()> {
    let mut remote = Remote::open(&format!("127.0.0.1:{}", relay.port()))?;
    let places = find(&mut remote)?;
    let first = at_rest(&mut remote, &places)?;
    for round in 0..count {
        remote.go_on()?;
        match round % 2 {
            0 => by_ctrl_c(&mut remote, &places, round),
            _ => at_handler(&mut remote, &places),
        }
        .with_context(|| format!("in round {} of {count}", round + 1))?;
    }
    let last = at_rest(&mut remote, &places)?;
    ensure!(
        first.iter().zip(&last).all(|(first, last)| first != last),
        "the guest has not run between the stops: {first:x?}, then {last:x?}"
    );
    remote.leave()
}

/// Stops the guest by Ctrl-C, and sets the breakpoint at the handler.
fn by_ctrl_c(remote: &mut Remote, places: &Places, round: u32) -> Result<()> {
    thread::sleep(Duration::from_micros((round * PRIME % MOST).into()));
    remote.interrupt()?;
    let stop = remote.stopped()?;
    ensure!(stop.signal == INTERRUPT, "Ctrl-C should have stopped the guest: {stop:?}");
    at_rest(remote, places)?;
    remote.set_breakpoint(places.handler, true)
}

/// Waits until the guest stops at the handler, removes the breakpoint there, and has the CPU execute the instruction.
fn at_handler(remote: &mut Remote, places: &Places) -> Result<()> {
    let stop = remote.stopped()?;
    let place = |remote: &mut Remote, Stop { thread, .. }| anyhow::Ok(remote.cpu(thread)?.general[RIP]);
    let before = place(remote, stop)?;
    ensure!(
        stop.signal == TRAP && before == places.handler,
        "the handler at {:#x} should have stopped the guest, at {before:#x}: {stop:?}",
        places.handler
    );
    at_rest(remote, places)?;
    remote.set_breakpoint(places.handler, false)?;
    remote.step(stop.thread)?;
    let stepped = remote.stopped()?;
    let after = place(remote, stepped)?;
    ensure!(stepped == stop && after != before, "the CPU should have stepped, at {after:#x}: {stepped:?}");
    Ok(())
}

/// Checks that all CPUs have stopped and do nothing. Returns the memory that changes while they run.
fn at_rest(remote: &mut Remote, places: &Places) -> Result<Vec<Vec<u8>>> {
    let read = |remote: &mut Remote| -> Result<Vec<_>> {
        places.changing.iter().map(|&(address, length)| remote.memory(address, length)).collect()
    };
    let before = read(remote)?;
    let threads = remote.threads()?;
    ensure!(threads == THREADS, "the CPUs that have stopped are the threads {threads:?}");
    let after = read(remote)?;
    ensure!(before == after, "a CPU runs on: {before:x?}, then {after:x?}");
    Ok(after)
}
