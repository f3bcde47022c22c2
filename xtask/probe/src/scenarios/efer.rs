//! The bits of EFER: those that a guest may change, SVME, which belongs to the hypervisor, and LME, which paging fixes.

use crate::attempt::{Hex, Verdict, rdmsr, wrmsr};
use crate::line::Line;

const EFER: u32 = 0xc000_0080;

const SCE: u64 = 1 << 0;
const LME: u64 = 1 << 8;
const NXE: u64 = 1 << 11;
const SVME: u64 = 1 << 12;

/// Toggles bits, reads EFER after each write, and restores it.
pub fn efer(line: &mut Line) {
    let Ok(start) = rdmsr(EFER) else { return line.word("none") };
    line.item("start", format_args!("{start:#x}"));
    for (name, bits) in [("sce", SCE), ("nxe", NXE), ("lme", LME), ("svme", SVME), ("reserved", 1 << 2 | 1 << 63)] {
        let outcome = wrmsr(EFER, start ^ bits);
        line.item(name, format_args!("{}/{}", Verdict(outcome), Hex(rdmsr(EFER))));
        // This cannot fault: EFER had this value before.
        let _ = wrmsr(EFER, start);
    }
    // Software cannot change LMA: the CPU ignores what is written to it.
    line.item("without-lma", format_args!("{}/{}", Verdict(wrmsr(EFER, start & !(1 << 10))), Hex(rdmsr(EFER))));
}
