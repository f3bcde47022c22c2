//! The end of a CPU that cannot go on: it halts, or it resets the machine.

use spin::Once;
use vidar_core::console::ending::{OnCrash, choice};

use super::log as console;
use crate::arch::{instructions, percpu, reset, stop};

/// What a CPU must do before it halts or resets the machine, if it may be in an extension's mode of operation.
#[derive(Debug, Clone, Copy)]
pub struct Hooks {
    /// Called before the CPU halts for good, so that firmware can interrupt it.
    pub before_halt: fn(),
    /// Called before the CPU resets the machine.
    pub before_reset: fn(),
}

/// The hooks of the extension in use, if its mode of operation has been entered.
static HOOKS: Once<Hooks> = Once::new();

/// Registers the hooks. A backend does so before its CPU enters that mode; later calls have no effect.
pub fn set_hooks(hooks: Hooks) {
    HOOKS.call_once(|| hooks);
}

/// Lets firmware interrupt this CPU, which is about to halt.
pub fn let_firmware_in() {
    if let Some(hooks) = HOOKS.get() {
        (hooks.before_halt)();
    }
}

/// Halts this CPU for good.
pub fn halt() -> ! {
    let_firmware_in();
    instructions::halt_forever()
}

/// Ends after a report, as the user has chosen: halts this CPU, or resets the machine. If the CPU halts, the log says
/// that `who` is halted.
pub fn end(who: &str) -> ! {
    match OnCrash::or_default(choice(), stop::is_armed()) {
        OnCrash::Halt => {
            log::error!("{who} is halted (on-crash=halt)");
            console::drain();
            stop::reported(percpu::apic_id());
            halt()
        }
        OnCrash::Reset => {
            log::error!("the machine is reset (on-crash=reset)");
            console::drain();
            reset()
        }
    }
}

/// Resets the machine.
pub fn reset() -> ! {
    if let Some(hooks) = HOOKS.get() {
        (hooks.before_reset)();
    }
    reset::reset()
}
