//! The commands of `monitor`: what gdb does not know, but Vidar does.

use core::fmt::{self, Write};

use gdbstub::common::Tid;
use vidar_abi::ExitKind;

use super::cpus::Cpus;
use super::memory::{self, Memory};
use super::structure::Layout;
use crate::kernel::Kernel;
use crate::mem::addr::{Gpa, Hpa, PageSize};
use crate::mem::mtrr::MemoryType;
use crate::mem::ranges::RangeSet;
use crate::report::exits::Exits;
use crate::report::state::Full;
use crate::vmm::cpu_state::CpuState;
use crate::vmm::crash::Snapshot;
use crate::vmm::percpu::PerCpu;

/// What surrounds the guest and is not a part of it.
pub trait Surroundings: Sync {
    /// Returns the per-CPU blocks, by the CPUs' numbers.
    fn cpus(&self) -> &'static [&'static PerCpu];

    /// Returns what a CPU's VMCS or VMCB consists of.
    fn layout(&self) -> Layout;

    /// Reads the log: copies bytes from a position on into the buffer, and returns the position of the first byte and
    /// the number of bytes.
    fn log(&self, position: u64, buffer: &mut [u8]) -> (u64, usize);

    /// Returns what the second stage maps at `address`: the host-physical address, and the size and the memory type of
    /// the page. Returns `None` if nothing is mapped there yet.
    fn second_stage(&self, address: Gpa) -> Option<(Hpa, PageSize, MemoryType)>;

    /// Resets the machine.
    fn reset(&self);
}

/// What the commands show.
pub struct Shown<'a> {
    /// The CPUs.
    pub cpus: &'a Cpus,
    /// The CPU that has stopped last.
    pub current: Tid,
    /// The guest's memory.
    pub memory: &'a (dyn Memory + Sync),
    /// The guest's RAM, in which its kernel is.
    pub ram: &'a RangeSet,
    /// What surrounds the guest.
    pub surroundings: &'a dyn Surroundings,
}

impl Shown<'_> {
    /// Returns the kernel that runs on the current CPU, and the state of that CPU.
    fn kernel(&self) -> Option<(Kernel, CpuState)> {
        let state = self.cpus.of(self.current)?.lock().registers.state;
        Some((Kernel::find_running(self.memory, self.ram, &state.controls)?, state))
    }
}

/// What a command says that needs the kernel and does not find it.
const NO_KERNEL: &str =
    "no Linux runs on this CPU that says where its symbols are: it does so when it has started";

/// A command.
struct Command {
    name: &'static str,
    /// What follows the name, and what the command does.
    help: &'static str,
    run: fn(&Shown<'_>, &mut Words<'_>, &mut dyn Write) -> fmt::Result,
}

/// The words of a command line.
type Words<'a> = core::str::SplitAsciiWhitespace<'a>;

/// The commands, in the order of `monitor help`.
static COMMANDS: &[Command] = &[
    Command { name: "help", help: "- lists these commands", run: help },
    Command {
        name: "regs",
        help: "- shows all registers of the current CPU, with hidden parts",
        run: registers,
    },
    Command {
        name: "vmcs",
        help: "[TEXT] - shows the VMCS of the current CPU, or its VMCB; only fields with TEXT in their names",
        run: structure,
    },
    Command { name: "exits", help: "- counts the exits of each CPU", run: exits },
    Command { name: "trace", help: "[N] - shows the last N exits of each CPU, 8 without N", run: trace },
    Command { name: "log", help: "- shows Vidar's log", run: log },
    Command { name: "kernel", help: "- names the kernel and how far it was moved", run: kernel },
    Command { name: "sym", help: "NAME or ADDR - finds a symbol of the kernel", run: symbol },
    Command {
        name: "bt",
        help: "- shows the call chain of the current CPU by the kernel's own tables",
        run: chain,
    },
    Command { name: "phys", help: "ADDR LEN - shows guest-physical memory", run: physical },
    Command { name: "stage2", help: "ADDR - shows what the second stage maps there", run: second_stage },
    Command { name: "reset", help: "- resets the machine", run: reset },
];

/// How many exits of each CPU `trace` shows if no number is given.
const EXITS: usize = 8;
/// The most bytes that `phys` shows at once.
const MOST: u64 = 4096;

/// Runs the command on the line `line`, and passes what it says to `say`, a line at a time.
pub fn run(line: &[u8], guest: &Shown<'_>, say: &mut dyn FnMut(&[u8])) {
    let line = core::str::from_utf8(line).unwrap_or_default();
    let mut words = line.split_ascii_whitespace();
    let name = words.next().unwrap_or("help");
    let mut out = Lines { say, buffer: [0; 128], length: 0 };
    // Writing cannot fail.
    let _ = match COMMANDS.iter().find(|command| command.name == name) {
        Some(command) => (command.run)(guest, &mut words, &mut out),
        None => writeln!(out, "there is no command \"{name}\"; see `monitor help`"),
    };
    out.flush();
}

fn help(_: &Shown<'_>, _: &mut Words<'_>, out: &mut dyn Write) -> fmt::Result {
    COMMANDS.iter().try_for_each(|command| writeln!(out, "monitor {} {}", command.name, command.help))
}

fn registers(guest: &Shown<'_>, _: &mut Words<'_>, out: &mut dyn Write) -> fmt::Result {
    let Some(slot) = guest.cpus.of(guest.current) else { return Ok(()) };
    let state = slot.lock().registers.state;
    writeln!(out, "CPU {}\n{}", guest.current.get() - 1, Full(&Snapshot { state, ..Snapshot::default() }))
}

fn structure(guest: &Shown<'_>, words: &mut Words<'_>, out: &mut dyn Write) -> fmt::Result {
    let Some(slot) = guest.cpus.of(guest.current) else { return Ok(()) };
    let (layout, values, part) = (guest.surroundings.layout(), slot.lock().structure, words.next());
    writeln!(out, "the {} of CPU {} when it stopped:", layout.name, guest.current.get() - 1)?;
    values
        .named(&layout)
        .filter(|(name, _)| part.is_none_or(|part| contains(name, part)))
        .try_for_each(|(name, value)| writeln!(out, "  {name} {value:#x}"))
}

/// Returns true if `name` contains `part`, whose letters may be small or capital.
fn contains(name: &str, part: &str) -> bool {
    name.as_bytes().windows(part.len()).any(|window| window.eq_ignore_ascii_case(part.as_bytes()))
}

fn exits(guest: &Shown<'_>, _: &mut Words<'_>, out: &mut dyn Write) -> fmt::Result {
    for cpu in guest.surroundings.cpus() {
        writeln!(out, "CPU {}: {} exits", cpu.index, cpu.counters.total())?;
        let counted = ExitKind::ALL.iter().map(|kind| (kind.name(), cpu.counters.get(*kind)));
        counted
            .filter(|(_, count)| *count != 0)
            .try_for_each(|(name, count)| writeln!(out, "  {name} {count}"))?;
    }
    Ok(())
}

fn trace(guest: &Shown<'_>, words: &mut Words<'_>, out: &mut dyn Write) -> fmt::Result {
    let count = match words.next() {
        None => EXITS,
        Some(word) => match number(Some(word)) {
            Some(count) => count as usize,
            None => return writeln!(out, "monitor trace [N]: give a number of exits, such as 20"),
        },
    };
    let kernel = guest.kernel();
    let place = |rip: u64| {
        let symbol = kernel.and_then(|(kernel, _)| kernel.symbol(guest.memory, rip));
        fmt::from_fn(move |f| match &symbol {
            Some((name, distance)) => write!(f, "{}+{distance:#x}", name.as_str()),
            None => write!(f, "{rip:#x}"),
        })
    };
    let mut traced = guest.surroundings.cpus().iter().filter_map(|cpu| Exits::of(cpu, place)).peekable();
    if traced.peek().is_none() {
        return writeln!(out, "there is no trace: boot with trace=on");
    }
    traced.try_for_each(|exits| writeln!(out, "{}", exits.last(count)))
}

fn log(guest: &Shown<'_>, _: &mut Words<'_>, out: &mut dyn Write) -> fmt::Result {
    let (mut position, mut piece) = (0, [0; 64]);
    loop {
        let (start, length) = guest.surroundings.log(position, &mut piece);
        if length == 0 {
            return Ok(());
        }
        piece[..length].utf8_chunks().try_for_each(|chunk| out.write_str(chunk.valid()))?;
        position = start + length as u64;
    }
}

fn kernel(guest: &Shown<'_>, _: &mut Words<'_>, out: &mut dyn Write) -> fmt::Result {
    match guest.kernel() {
        Some((kernel, _)) => writeln!(out, "Linux {}, moved by {:#x}", kernel.release(), kernel.offset()),
        None => writeln!(out, "{NO_KERNEL}"),
    }
}

fn symbol(guest: &Shown<'_>, words: &mut Words<'_>, out: &mut dyn Write) -> fmt::Result {
    let Some(wanted) = words.next() else {
        return writeln!(out, "monitor sym NAME or ADDR: give the name of a function, or an address");
    };
    let Some((kernel, _)) = guest.kernel() else { return writeln!(out, "{NO_KERNEL}") };
    let address = number(Some(wanted)).or_else(|| kernel.address(guest.memory, wanted));
    let found = address.and_then(|address| Some((address, kernel.symbol(guest.memory, address)?)));
    match found {
        Some((address, (name, distance))) => writeln!(out, "{address:#x} is {}+{distance:#x}", name.as_str()),
        None => writeln!(out, "the kernel has no symbol {wanted}"),
    }
}

fn chain(guest: &Shown<'_>, _: &mut Words<'_>, out: &mut dyn Write) -> fmt::Result {
    let Some((kernel, state)) = guest.kernel() else { return writeln!(out, "{NO_KERNEL}") };
    let mut result = Ok(());
    let end = kernel.chain(guest.memory, &state, &mut |frame| {
        result = result.and(match kernel.function(guest.memory, frame) {
            Some((name, distance)) => {
                writeln!(out, "  {:016x} {}+{distance:#x}", frame.address, name.as_str())
            }
            None => writeln!(out, "  {:016x}", frame.address),
        });
    });
    result.and_then(|()| writeln!(out, "end: {end}"))
}

fn physical(guest: &Shown<'_>, words: &mut Words<'_>, out: &mut dyn Write) -> fmt::Result {
    let (Some(start), Some(length)) = (number(words.next()), number(words.next())) else {
        return writeln!(out, "monitor phys ADDR LEN: give two numbers, such as 0x100000 64");
    };
    let end = start.saturating_add(length.min(MOST));
    for line in (start..end).step_by(16) {
        write!(out, "{line:#018x}:")?;
        for at in line..end.min(line.saturating_add(16)) {
            match memory::physical(guest.memory, Gpa(at)) {
                Some(byte) => write!(out, " {byte:02x}")?,
                None => write!(out, " --")?,
            }
        }
        writeln!(out)?;
    }
    if length > MOST { writeln!(out, "... (at most {MOST} bytes at once)") } else { Ok(()) }
}

fn second_stage(guest: &Shown<'_>, words: &mut Words<'_>, out: &mut dyn Write) -> fmt::Result {
    let Some(address) = number(words.next()) else {
        return writeln!(out, "monitor stage2 ADDR: give a guest-physical address, such as 0x100000");
    };
    match guest.surroundings.second_stage(Gpa(address)) {
        Some((to, size, kind)) => {
            writeln!(out, "guest {} is host {to}, in a page of {size}, {kind:?}", Gpa(address))
        }
        None => writeln!(out, "guest {} is not mapped yet", Gpa(address)),
    }
}

fn reset(guest: &Shown<'_>, _: &mut Words<'_>, _: &mut dyn Write) -> fmt::Result {
    guest.surroundings.reset();
    Ok(())
}

/// Returns the number that `word` is, in hexadecimal after `0x` and otherwise in decimal.
fn number(word: Option<&str>) -> Option<u64> {
    let word = word?;
    match word.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => word.parse().ok(),
    }
}

/// A writer that passes on whole lines, so that a line is one packet. Longer lines are passed on in pieces.
struct Lines<'a> {
    say: &'a mut dyn FnMut(&[u8]),
    buffer: [u8; 128],
    length: usize,
}

impl Lines<'_> {
    fn flush(&mut self) {
        if self.length > 0 {
            (self.say)(&self.buffer[..self.length]);
            self.length = 0;
        }
    }
}

impl Write for Lines<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            self.buffer[self.length] = byte;
            self.length += 1;
            if byte == b'\n' || self.length == self.buffer.len() {
                self.flush();
            }
        }
        Ok(())
    }
}
