//! The last words of Vidar's own: of its bugs, and of a machine check that it cannot go on after.

#![expect(unsafe_code, reason = "walks the frame pointers of the stack")]

use core::arch::asm;
use core::fmt;
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicBool, Ordering};

use super::{ending, log as console};
use crate::arch::instructions::halt_forever;
use crate::arch::{percpu, stop};

/// Bytes in the largest of Vidar's stacks.
const LARGEST_STACK: u64 = 32 * 1024;
/// Return addresses shown at most.
const BACKTRACE_DEPTH: usize = 24;

static SPEAKING: AtomicBool = AtomicBool::new(false);

/// Says what went wrong, on every console, with all other CPUs stopped, and ends as the user wants.
pub fn report(info: &PanicInfo<'_>) -> ! {
    speak_once();
    stop::others(percpu::current().map_or(0, |cpu| cpu.apic_id));
    console::take_back();
    let (file, line) = info.location().map_or(("?", 0), |location| (location.file(), location.line()));
    log::error!("Vidar panicked: {} ({file}:{line}); report this with what follows", info.message());
    backtrace();
    ending::end("the machine")
}

/// Says what `banks` of machine-check registers hold and what was interrupted, and ends as the user wants. The other CPUs may
/// be in the guest's handler for the same error, which waits for all and takes down what they know: they go on.
pub fn machine_check(banks: &impl fmt::Display, interrupted: &impl fmt::Display) -> ! {
    speak_once();
    console::take_back();
    let index = percpu::current().map_or(0, |cpu| cpu.index);
    log::error!(
        "machine check in Vidar on CPU {index}: the hardware reports an error; see the firmware's error log\n  \
         {banks}\n  {interrupted}"
    );
    ending::end("this CPU")
}

/// A panic while reporting a panic has nothing more to say.
fn speak_once() {
    if SPEAKING.swap(true, Ordering::Relaxed) {
        halt_forever();
    }
}

/// Logs the return addresses on the stack; `addr2line -e` on the image tells their names.
fn backtrace() {
    let (mut frame, stack): (u64, u64);
    // SAFETY: reads two registers.
    unsafe { asm!("mov {}, rbp", "mov {}, rsp", out(reg) frame, out(reg) stack, options(nomem, nostack)) };
    for _ in 0..BACKTRACE_DEPTH {
        // What does not lie on this stack is the end: at VM entry RBP is the guest's for a moment.
        if !(stack..stack + LARGEST_STACK).contains(&frame) || !frame.is_multiple_of(8) {
            break;
        }
        // SAFETY: code built with frame pointers keeps the caller's RBP and the return address here; both lie on a
        // stack of Vidar's, which is mapped. A wild RBP faults into a second panic, which stops quietly.
        let [next, address] = unsafe { *(frame as *const [u64; 2]) };
        if address == 0 {
            break;
        }
        log::error!("  called from {address:#x}");
        frame = next;
    }
}
