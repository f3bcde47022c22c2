//! NMIs, of which none may be lost, whatever the CPU executes when they arrive.

use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

use crate::apic::{Apic, NMI, timer_once};
use crate::cpu::cpuid;
use crate::frame::Frame;
use crate::handlers::handling;
use crate::line::Line;

const ROUNDS: u16 = 50;

/// The number of loops that the probe waits for an NMI.
const PATIENCE: u32 = 100_000;

static COUNT: AtomicU32 = AtomicU32::new(0);
/// The number of NMIs that the handler is still to send to itself.
static MORE: AtomicU32 = AtomicU32::new(0);
static DEPTH: AtomicU32 = AtomicU32::new(0);
static DEEPEST: AtomicU32 = AtomicU32::new(0);

fn on_nmi(_: &mut Frame) {
    let depth = DEPTH.fetch_add(1, Relaxed) + 1;
    DEEPEST.fetch_max(depth, Relaxed);
    COUNT.fetch_add(1, Relaxed);
    if MORE.load(Relaxed) > 0 {
        MORE.fetch_sub(1, Relaxed);
        Apic::find().nmi_self();
        // The next NMI must wait until this handler returns, although the CPU exits in between.
        for _ in 0..10 {
            cpuid(0x8000_0000, 0);
        }
    }
    DEPTH.fetch_sub(1, Relaxed);
}

/// Runs `step` until an NMI has come. Returns 1 if it came, and 0 if it took too long.
fn wait(step: impl Fn()) -> u32 {
    let before = COUNT.load(Relaxed);
    for _ in 0..PATIENCE {
        if COUNT.load(Relaxed) != before {
            return 1;
        }
        step();
    }
    0
}

/// Takes NMIs that the CPU sends to itself, NMIs of the timer while the guest runs and while it exits, and NMIs in a
/// handler.
pub fn nmi(line: &mut Line) {
    let apic = Apic::find();
    apic.enable();
    handling(2, on_nmi, || {
        let mut direct = 0;
        for _ in 0..10 {
            let before = COUNT.load(Relaxed);
            apic.nmi_self();
            wait(core::hint::spin_loop);
            direct += COUNT.load(Relaxed) - before;
        }
        line.item("self", format_args!("{direct}/10"));

        apic.timer_as(Some(NMI));
        for (name, step) in [("running", core::hint::spin_loop as fn()), ("in-cpuid", leave)] {
            let mut seen = 0;
            for round in 0..ROUNDS {
                // Each round waits for a different time, so that the NMI comes at a different instruction.
                timer_once(200 + 7 * round);
                seen += wait(step);
            }
            line.item(name, format_args!("{seen}/{ROUNDS}"));
        }
        apic.timer_as(None);

        COUNT.store(0, Relaxed);
        DEEPEST.store(0, Relaxed);
        MORE.store(3, Relaxed);
        apic.nmi_self();
        for _ in 0..100 {
            leave();
        }
        line.item("in-handler", format_args!("{}/4", COUNT.load(Relaxed)));
        line.item("depth", DEEPEST.load(Relaxed));
    });
}

fn leave() {
    cpuid(0x8000_0000, 0);
}
