//! A machine check, which the test injects from outside of the machine.

use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

use crate::attempt::{keeping_cr4, rdmsr, set_cr4, wrmsr};
use crate::cpu;
use crate::frame::Frame;
use crate::handlers::handling;
use crate::line::Line;
use crate::serial::{Serial, say};

/// CR4.MCE.
const MACHINE_CHECKS: u64 = 1 << 6;
/// IA32_MCG_STATUS.
const GLOBAL_STATUS: u32 = 0x17a;
/// IA32_MC1_STATUS.
const BANK_STATUS: u32 = 0x405;

/// The number of loops that the probe waits for the machine check.
const PATIENCE: u32 = 400_000_000;

static TAKEN: AtomicU32 = AtomicU32::new(0);

fn on_machine_check(_: &mut Frame) {
    TAKEN.fetch_add(1, Relaxed);
}

/// Turns machine checks on, prints that the probe is ready, waits for one, and reads the CPU's registers that describe
/// it.
pub fn machine_check(line: &mut Line) {
    keeping_cr4(|| {
        handling(18, on_machine_check, || {
            let _ = set_cr4(cpu::cr4() | MACHINE_CHECKS);
            say!("probe machine-check: now");
            Serial::drain();
            for _ in 0..PATIENCE {
                if TAKEN.load(Relaxed) > 0 {
                    break;
                }
                core::hint::spin_loop();
            }
        });
    });
    line.item("taken", TAKEN.load(Relaxed));
    for (name, index) in [("global", GLOBAL_STATUS), ("status", BANK_STATUS)] {
        line.item(name, format_args!("{:#x}", rdmsr(index).unwrap_or(0)));
        let _ = wrmsr(index, 0);
    }
}
