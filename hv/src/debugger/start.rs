//! Making the debugger, before the guest runs.

use alloc::boxed::Box;
use alloc::vec::Vec;

use spin::{Mutex, Once};
use vidar_core::boot::options::{Gdb, Options};
use vidar_core::debugger::cpus::{Cpus, Slot};
use vidar_core::debugger::debuggable::Debuggable;
use vidar_core::debugger::desk::Desk;
use vidar_core::debugger::observer::Debugger;
use vidar_core::debugger::session::Session;
use vidar_core::debugger::target::Guest;
use vidar_core::firmware::io_apic::Pin;
use vidar_core::mem::ranges::RangeSet;
use vidar_core::mem::stage2::TableMemory;
use vidar_core::vmm::kept_pin::KeptPin;
use vidar_core::vmm::machine::Machine;
use vidar_core::vmm::percpu::PerCpu;

use super::around::Around;
use super::line::Line;
use super::memory::GuestMemory;
use super::pin;
use crate::host::memory::HostMemory;
use crate::host::physical::GuestReader;

/// Where the CPUs stop for gdb, and true if the guest waits for gdb before its first instruction.
static DESK: Once<(Desk, bool)> = Once::new();

/// Returns the serial line for gdb, if the options want one and it can be used. Warns if it cannot.
pub fn line(options: &Options) -> Option<(Line, Gdb)> {
    let gdb = options.gdb?;
    if options.console.serial && options.serial == gdb.line {
        log::warn!(
            "gdb= names the serial port that the log uses, and has no effect: choose another one with serial="
        );
        return None;
    }
    let line = Line::open(gdb.line.port());
    if line.is_none() {
        log::warn!("no UART works at port {:#x}, and gdb= has no effect", gdb.line.port());
    }
    line.map(|line| (line, gdb))
}

/// Has gdb's line interrupt the boot CPU, on an extension where no time makes a CPU exit. `find` finds the pin of an
/// ISA interrupt. Warns if it cannot.
pub fn keep_pin<V: Debuggable>(
    gdb: &mut Option<(Line, Gdb)>,
    find: impl FnOnce(u8) -> Option<Pin>,
    ram: &RangeSet,
    boot: &PerCpu,
    memory: &mut HostMemory,
) -> Option<KeptPin> {
    let (line, gdb) = gdb.as_mut().filter(|_| V::CALLED_BY_NMI)?;
    let pin = find(gdb.line.interrupt()).and_then(|pin| pin::keep(pin, ram, boot.apic_id, memory));
    line.interrupts = pin.is_some();
    if !line.interrupts {
        log::warn!(
            "gdb cannot stop a guest that takes no interrupts on any CPU: no I/O APIC leads to its serial port"
        );
    }
    pin
}

/// Makes the debugger for a guest on `machine`, whose memory `reader` reads and whose RAM is `ram`, on `line`.
pub fn start<V, T>(
    machine: &'static Machine<V, T>,
    reader: GuestReader,
    ram: RangeSet,
    (mut line, gdb): (Line, Gdb),
) where
    V: Debuggable,
    T: TableMemory + Send,
    Machine<V, T>: Sync,
{
    let slots: Vec<_> = machine.host.cpus.iter().map(|_| Mutex::new(Slot::default())).collect();
    let guest = Guest::new(
        Cpus(slots.leak()),
        Box::leak(Box::new(GuestMemory(reader))),
        ram,
        Box::leak(Box::new(Around(machine))),
    );
    if V::CALLED_BY_NMI {
        line.called = machine.host.cpus;
    }
    DESK.call_once(|| (Desk::new(Session::new(guest), Box::leak(Box::new(line))), gdb.waits));
    let port = gdb.line.port();
    match gdb.waits {
        true => log::info!("the guest waits for gdb at the serial port {port:#x}, with 115200 baud"),
        false => log::info!("gdb can debug the guest at the serial port {port:#x}, with 115200 baud"),
    }
}

/// Returns the debugger of the CPU `index`, or `None` if there is none.
pub fn on_cpu(index: u32) -> Option<Debugger> {
    let (desk, waits) = DESK.get()?;
    Some(Debugger::new(desk, index as usize, *waits && index == 0))
}
