//! The end of a CPU that cannot go on: it halts, or it resets the machine.

use spin::Once;
use vidar_core::console::ending::{OnCrash, choice};

use super::log as console;
use crate::arch::{instructions, reset, stop};

/// What a CPU has to do in an extension's mode of operation, from wherever it is.
#[derive(Debug, Clone, Copy)]
pub struct Ways {
    /// Before it halts for good: firmware must be able to interrupt it.
    pub before_halt: fn(),
    /// Before it resets the machine.
    pub before_reset: fn(),
}

static WAYS: Once<Ways> = Once::new();

/// Tells them; a backend does so before its CPU enters that mode.
pub fn set_ways(ways: Ways) {
    WAYS.call_once(|| ways);
}

/// Lets firmware interrupt this CPU, which is to halt.
pub fn let_firmware_in() {
    if let Some(ways) = WAYS.get() {
        (ways.before_halt)();
    }
}

/// Halts this CPU, because another has something to report.
pub fn halt_for_another() -> ! {
    let_firmware_in();
    instructions::halt_forever()
}

/// After the last words: what the user wants done. `who` halts if it is to.
pub fn end(who: &str) -> ! {
    match OnCrash::or_default(choice(), stop::is_armed()) {
        OnCrash::Halt => {
            log::error!("{who} is halted (on-crash=halt)");
            console::drain();
            let_firmware_in();
            instructions::halt_forever()
        }
        OnCrash::Reset => {
            log::error!("the machine is reset (on-crash=reset)");
            console::drain();
            if let Some(ways) = WAYS.get() {
                (ways.before_reset)();
            }
            reset::reset()
        }
    }
}
