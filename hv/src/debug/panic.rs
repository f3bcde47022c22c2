//! Vidar's reports about itself: about its bugs, and about a machine check after which it cannot continue.

#![expect(unsafe_code, reason = "walks the frame pointers of the stack")]

use core::arch::asm;
use core::fmt;
use core::panic::PanicInfo;

use vidar_core::mem::addr::Hva;
use vidar_core::report::exits::Exits;

use super::version::{RELEASE, build_id};
use super::{ending, log as console};
use crate::arch::{percpu, stop};

/// The size in bytes of the largest of Vidar's stacks.
const LARGEST_STACK: u64 = 32 * 1024;
/// The largest number of return addresses that are reported.
const BACKTRACE_DEPTH: usize = 24;

/// Stops all other CPUs where an INIT can, reports the panic on every console, and halts or resets the machine as the
/// user has chosen.
pub fn report(info: &PanicInfo<'_>) -> ! {
    let Some(who) = stop::others(percpu::apic_id()) else { ending::halt() };
    speak_once();
    console::take_back_for_report();
    let (file, line) = info.location().map_or(("?", 0), |location| (location.file(), location.line()));
    let index = percpu::current().map_or(0, |cpu| cpu.index);
    log::error!(
        "Vidar panicked: {}\n  at {file}:{line}, on CPU {index}, in Vidar {RELEASE},\n  build {:016x}; report this with what follows",
        info.message(),
        build_id()
    );
    backtrace();
    if let Some(exits) = percpu::current().and_then(|cpu| Exits::of(cpu, Hva)) {
        log::error!("{exits}");
    }
    ending::end(who)
}

/// Reports what the machine-check registers in `banks` hold and what was `interrupted`, and halts this CPU or resets
/// the machine as the user has chosen. The other CPUs are not stopped: they may be in the guest's handler for the same
/// error, which waits for all CPUs and records what each of them reports.
pub fn machine_check(banks: &impl fmt::Display, interrupted: &impl fmt::Display) -> ! {
    speak_once();
    console::take_back_for_report();
    let index = percpu::current().map_or(0, |cpu| cpu.index);
    log::error!(
        "machine check in Vidar on CPU {index}: the hardware reports an error; see the firmware's error log\n  \
         {banks}\n  {interrupted}"
    );
    ending::end("this CPU")
}

/// Halts this CPU if it is writing a report about Vidar already: a panic during such a report has nothing more to say.
fn speak_once() {
    if !stop::begin_about_vidar(percpu::apic_id()) {
        ending::halt();
    }
}

/// Logs the return addresses on the stack. `cargo xtask symbolize` names their functions and lines.
#[inline(never)] // so that the first address is always in the function that calls this one
fn backtrace() {
    let (mut frame, stack): (u64, u64);
    // SAFETY: the instructions only read two registers.
    unsafe { asm!("mov {}, rbp", "mov {}, rsp", out(reg) frame, out(reg) stack, options(nomem, nostack)) };
    for _ in 0..BACKTRACE_DEPTH {
        // A frame pointer outside of this stack ends the trace: near VM entry RBP holds the guest's value for a moment.
        if !(stack..stack + LARGEST_STACK).contains(&frame) || !frame.is_multiple_of(8) {
            break;
        }
        // SAFETY: code that is built with frame pointers keeps the caller's RBP and the return address here, on a stack
        // of Vidar's, which is mapped. If RBP is wrong, a second panic may follow, and it halts the CPU.
        let [next, address] = unsafe { *(frame as *const [u64; 2]) };
        if address == 0 {
            break;
        }
        log::error!("  called from {address:#x}");
        frame = next;
    }
}
