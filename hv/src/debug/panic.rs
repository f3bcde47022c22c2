//! The last words of Vidar's own bugs.

#![expect(unsafe_code, reason = "walks the frame pointers of the stack")]

use core::arch::asm;
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicBool, Ordering};

use super::log as console;
use crate::arch::instructions::halt_forever;
use crate::arch::percpu::PerCpu;
use crate::arch::stop;

/// Bytes in the largest of Vidar's stacks.
const LARGEST_STACK: u64 = 32 * 1024;
/// Return addresses shown at most.
const BACKTRACE_DEPTH: usize = 24;

/// Says what went wrong, on every console, and stops this CPU.
pub fn report(info: &PanicInfo<'_>) -> ! {
    static PANICKING: AtomicBool = AtomicBool::new(false);
    if PANICKING.swap(true, Ordering::Relaxed) {
        halt_forever(); // a panic while reporting a panic has nothing more to say
    }
    stop::others(PerCpu::current().map_or(0, |cpu| cpu.apic_id));
    console::take_back();
    let (file, line) = info.location().map_or(("?", 0), |location| (location.file(), location.line()));
    log::error!("Vidar panicked: {} ({file}:{line}); report this with what follows", info.message());
    backtrace();
    console::drain();
    halt_forever()
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
