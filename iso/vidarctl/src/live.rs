//! Answers that go on: `vidarctl top` and `vidarctl trace --follow`.

use std::io::{self, Write};
use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::thread::{CpuSet, sched_getcpu, sched_setaffinity};

use crate::failure::Failure;
use crate::hypercall::{self, Answer, Request};
use crate::query::Vidar;
use crate::terminal::Terminal;
use crate::top::{self, Rates};
use crate::trace::clock::Clock;
use crate::trace::kinds::Kinds;
use crate::trace::own::Own;
use crate::trace::reader::{Read, Reader};
use crate::trace::symbols::Symbols;
use crate::trace::{HEADER, events, line};

/// The time between two pictures of `vidarctl top`.
pub const REFRESH: Duration = Duration::from_secs(1);
/// The time between two looks of `vidarctl trace --follow`.
const FOLLOW: Duration = Duration::from_millis(200);

/// Returns the exits of the next second, or `None` if the user wants to end the view.
pub fn rates<C: Fn(Request) -> Answer>(
    vidar: &Vidar<C>,
    here: u64,
    wait: impl FnOnce() -> bool,
) -> Result<Option<Rates>, Failure> {
    let (begun, before) = (Instant::now(), vidar.exits_by_cpu()?);
    if wait() {
        return Ok(None);
    }
    let (time, after) = (begun.elapsed(), vidar.exits_by_cpu()?);
    Ok(Some(Rates::between(&before, &after, here, time)))
}

/// Makes this program stay on the CPU that it runs on, and returns the number of that CPU.
pub fn stay() -> u64 {
    let here = sched_getcpu();
    let mut only = CpuSet::new();
    if here < CpuSet::MAX_CPU {
        only.set(here);
        // Where this fails, hypercalls of this program may be counted on another CPU.
        let _ = sched_setaffinity(None, &only);
    }
    here as u64
}

/// Shows the exits per second until the user ends the view.
pub fn watch(json: bool) -> Result<ExitCode, Failure> {
    let vidar = Vidar::find(hypercall::call, hypercall::hypervisor())?;
    let here = stay();
    let terminal = Terminal::take();
    loop {
        let Some(rates) = rates(&vidar, here, || terminal.wait(REFRESH))? else {
            return Ok(ExitCode::SUCCESS);
        };
        let text = if json {
            rates.json()
        } else {
            top::screen(&format!("{}\nq ends this view.\n", rates.text()), terminal.columns())
        };
        if !go_on(&text) {
            return Ok(ExitCode::SUCCESS);
        }
    }
}

/// Prints the last exits of the kinds `only`, and then new ones until a signal ends the program. As JSON they are an
/// array without an end, as the Trace Event format allows.
pub fn follow(last: Option<usize>, only: Kinds, json: bool) -> Result<ExitCode, Failure> {
    let vidar = Vidar::find(hypercall::call, hypercall::hypervisor())?;
    let mut reader = Reader::new(&vidar, Own::of_this_program(), only)?;
    let Read { mut exits, .. } = reader.read()?;
    let (clock, symbols) = (Clock::measure(), Symbols::of_the_kernel());
    exits.drain(..exits.len() - last.unwrap_or(usize::MAX).min(exits.len()));
    let mut text =
        if json { format!("[\n{}", events::tracks(reader.cpus()).join(",\n")) } else { HEADER.to_owned() };
    loop {
        for exit in &exits {
            text += &if json {
                format!(",\n{}", events::event(exit, clock, &symbols))
            } else {
                line(exit, clock, &symbols)
            };
        }
        if !go_on(&text) {
            return Ok(ExitCode::SUCCESS);
        }
        text.clear();
        sleep(FOLLOW);
        let read = reader.read()?;
        if read.lost > 0 {
            eprintln!("vidarctl: {} exits were overwritten before they could be read", read.lost);
        }
        exits = read.exits;
    }
}

/// Prints a part of an answer without an end. Returns false if nobody reads on.
fn go_on(text: &str) -> bool {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_ok()
}
