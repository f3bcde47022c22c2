//! Control registers: the bits a hypervisor keeps an eye on, and what depends on them.

use crate::attempt::{Shown, keeping_cr4, set_cr0, set_cr4};
use crate::cpu::{cpuid, cr0, cr4};
use crate::line::Line;

const CR4_VMXE: u64 = 1 << 13;
const CR4_SMXE: u64 = 1 << 14;
const CR4_OSXSAVE: u64 = 1 << 18;
const CR4_PKE: u64 = 1 << 22;
/// Reserved in every CPU so far.
const CR4_RESERVED: u64 = 1 << 63;

const CR0_PE: u64 = 1 << 0;
const CR0_TS: u64 = 1 << 3;
const CR0_NE: u64 = 1 << 5;
const CR0_WP: u64 = 1 << 16;
const CR0_NW: u64 = 1 << 29;
const CR0_CD: u64 = 1 << 30;
const CR0_PG: u64 = 1 << 31;

/// Bits of CR4 that a guest does not have.
pub fn cr4_refused(line: &mut Line) {
    let base = cr4();
    line.item("cr4", format_args!("{base:#x}"));
    for (name, bit) in [("vmxe", CR4_VMXE), ("smxe", CR4_SMXE), ("reserved", CR4_RESERVED)] {
        let (outcome, read) = keeping_cr4(|| (set_cr4(base | bit), cr4()));
        line.item(name, format_args!("{}/{read:#x}", Shown(outcome)));
    }
}

/// Bits of CR4 that CPUID shows.
pub fn cr4_bits(line: &mut Line) {
    let base = cr4();
    line.item("same", Shown(set_cr4(base)));
    if cpuid(1, 0)[2] >> 26 & 1 == 1 {
        let follows = || cpuid(1, 0)[2] >> 27 & 1;
        let before = follows();
        let (outcome, on) = keeping_cr4(|| (set_cr4(base | CR4_OSXSAVE), follows()));
        line.item("osxsave", format_args!("{}/{before}{on}{}", Shown(outcome), follows()));
    }
    if cpuid(7, 0)[2] >> 3 & 1 == 1 {
        let follows = || cpuid(7, 0)[2] >> 4 & 1;
        let before = follows();
        let (outcome, on) = keeping_cr4(|| (set_cr4(base | CR4_PKE), follows()));
        line.item("pke", format_args!("{}/{before}{on}{}", Shown(outcome), follows()));
    }
}

/// Values of CR0 that a CPU takes.
pub fn cr0_bits(line: &mut Line) {
    let bits = [("ne", CR0_NE), ("wp", CR0_WP), ("ts", CR0_TS), ("cd", CR0_CD), ("cd-nw", CR0_CD | CR0_NW)];
    cr0_values(line, |base| bits.map(|(name, bits)| (name, base ^ bits)));
}

/// Values of CR0 that it does not take: paging without protection, no write-through with the caches on, 64-bit code
/// without paging, and a bit above 31. SDM Vol. 2B, 4.3 "Instructions (M-U)" has #GP for each, under MOV to control
/// registers.
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

/// Tries the values, each from the same base. Firmware leaves the caches off and NE clear or not as it likes, so both are
/// settled first.
fn cr0_values<const N: usize>(line: &mut Line, values: impl Fn(u64) -> [(&'static str, u64); N]) {
    let start = cr0();
    let base = start & !(CR0_CD | CR0_NW | CR0_NE);
    line.item("base", format_args!("{}/{:#x}", Shown(set_cr0(base)), cr0()));
    for (name, value) in values(base) {
        let outcome = set_cr0(value);
        line.item(name, format_args!("{}/{:#x}", Shown(outcome), cr0()));
        // It held this value a moment ago, so it may hold it again.
        let _ = set_cr0(base);
    }
    let outcome = set_cr0(start);
    line.item("restored", if outcome.is_ok() && cr0() == start { "ok" } else { "no" });
}
