//! The bits of the control registers that a hypervisor intercepts, and the bits of CPUID that depend on them.

use crate::attempt::{Verdict, keeping_cr4, set_cr0, set_cr4};
use crate::cpu::{cpuid, cr0, cr4};
use crate::line::Line;

const CR4_VMXE: u64 = 1 << 13;
const CR4_SMXE: u64 = 1 << 14;
const CR4_OSXSAVE: u64 = 1 << 18;
const CR4_PKE: u64 = 1 << 22;
/// A bit that is reserved in all CPUs.
const CR4_RESERVED: u64 = 1 << 63;

const CR0_PE: u64 = 1 << 0;
const CR0_TS: u64 = 1 << 3;
const CR0_NE: u64 = 1 << 5;
const CR0_WP: u64 = 1 << 16;
const CR0_NW: u64 = 1 << 29;
const CR0_CD: u64 = 1 << 30;
const CR0_PG: u64 = 1 << 31;

/// Sets bits of CR4 that a guest does not have.
pub fn cr4_refused(line: &mut Line) {
    let base = cr4();
    line.item("cr4", format_args!("{base:#x}"));
    for (name, bit) in [("vmxe", CR4_VMXE), ("smxe", CR4_SMXE), ("reserved", CR4_RESERVED)] {
        let (outcome, read) = keeping_cr4(|| (set_cr4(base | bit), cr4()));
        line.item(name, format_args!("{}/{read:#x}", Verdict(outcome)));
    }
}

/// Sets bits of CR4 that CPUID reflects.
pub fn cr4_bits(line: &mut Line) {
    let base = cr4();
    line.item("same", Verdict(set_cr4(base)));
    if cpuid(1, 0)[2] >> 26 & 1 == 1 {
        let follows = || cpuid(1, 0)[2] >> 27 & 1;
        let before = follows();
        let (outcome, on) = keeping_cr4(|| (set_cr4(base | CR4_OSXSAVE), follows()));
        line.item("osxsave", format_args!("{}/{before}{on}{}", Verdict(outcome), follows()));
    }
    if cpuid(7, 0)[2] >> 3 & 1 == 1 {
        let follows = || cpuid(7, 0)[2] >> 4 & 1;
        let before = follows();
        let (outcome, on) = keeping_cr4(|| (set_cr4(base | CR4_PKE), follows()));
        line.item("pke", format_args!("{}/{before}{on}{}", Verdict(outcome), follows()));
    }
}

/// Writes values to CR0 that a CPU accepts.
pub fn cr0_bits(line: &mut Line) {
    let bits = [("ne", CR0_NE), ("wp", CR0_WP), ("ts", CR0_TS), ("cd", CR0_CD), ("cd-nw", CR0_CD | CR0_NW)];
    cr0_values(line, |base| bits.map(|(name, bits)| (name, base ^ bits)));
}

/// Writes values to CR0 that a CPU refuses: paging without protected mode, NW without CD, no paging in 64-bit mode, and
/// a bit above 31. SDM Vol. 2B, 4.3 "Instructions (M-U)" says under MOV to control registers that each raises #GP.
pub fn cr0_refused(line: &mut Line) {
    cr0_values(line, |base| {
        [
            ("pg-without-pe", base & !CR0_PE),
            ("nw-without-cd", base | CR0_NW),
            ("no-pg", base & !CR0_PG),
            ("bit-32", base | 1 << 32),
        ]
    });
}

/// Writes each value to CR0, and restores the same base after each. The base has CD, NW and NE clear, since firmware
/// may leave them set or clear.
fn cr0_values<const N: usize>(line: &mut Line, values: impl Fn(u64) -> [(&'static str, u64); N]) {
    let start = cr0();
    let base = start & !(CR0_CD | CR0_NW | CR0_NE);
    line.item("base", format_args!("{}/{:#x}", Verdict(set_cr0(base)), cr0()));
    for (name, value) in values(base) {
        let outcome = set_cr0(value);
        line.item(name, format_args!("{}/{:#x}", Verdict(outcome), cr0()));
        // This cannot fault: CR0 had this value before.
        let _ = set_cr0(base);
    }
    let outcome = set_cr0(start);
    line.item("restored", if outcome.is_ok() && cr0() == start { "ok" } else { "no" });
}
