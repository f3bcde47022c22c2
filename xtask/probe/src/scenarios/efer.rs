//! EFER: the bits that a guest has, the one that is the hypervisor's, and the one that paging holds.

use crate::attempt::{Hex, Shown, rdmsr, wrmsr};
use crate::line::Line;

const EFER: u32 = 0xc000_0080;

const SCE: u64 = 1 << 0;
const LME: u64 = 1 << 8;
const NXE: u64 = 1 << 11;
const SVME: u64 = 1 << 12;

/// Toggles bits, each from the same base, which it reads back and puts back.
pub fn efer(line: &mut Line) {
    let Ok(start) = rdmsr(EFER) else { return line.word("none") };
    line.item("start", format_args!("{start:#x}"));
    for (name, bits) in [("sce", SCE), ("nxe", NXE), ("lme", LME), ("svme", SVME), ("reserved", 1 << 2 | 1 << 63)] {
        let outcome = wrmsr(EFER, start ^ bits);
        line.item(name, format_args!("{}/{}", Shown(outcome), Hex(rdmsr(EFER))));
        // It held this value a moment ago, so it may hold it again.
        let _ = wrmsr(EFER, start);
    }
    // LMA is not for software to change: what is written there does not matter.
    line.item("without-lma", format_args!("{}/{}", Shown(wrmsr(EFER, start & !(1 << 10))), Hex(rdmsr(EFER))));
}
