//! Protection keys for user pages and for supervisor pages: the accesses that they forbid must be the same after an
//! exit.
//!
//! Intel SDM Vol. 3A, 5.6.2 "Protection Keys".

#![expect(unsafe_code, reason = "pages are accessed that protection keys forbid")]

use core::arch::asm;

use crate::attempt::{Hex, Outcome, Verdict, attempt, keeping_cr4, rdmsr, set_cr4, wrmsr};
use crate::cpu::{cpuid, cr4};
use crate::image::physical;
use crate::line::Line;
use crate::window::{self, Table};

const CR4_PKE: u64 = 1 << 22;
const CR4_PKS: u64 = 1 << 24;
const IA32_PKRS: u32 = 0x6e1;

/// Flags of a page with key 1: present, writable, accessed, dirty.
const SUPERVISOR_PAGE: u64 = 0x63 | 1 << 59;
/// The same flags, for a page that is accessible at CPL 3.
const USER_PAGE: u64 = SUPERVISOR_PAGE | 4;
/// The access-disable bit of key 1.
const NO_ACCESS: u64 = 0b01 << 2;
/// The write-disable bit of key 1.
const NO_WRITE: u64 = 0b10 << 2;

static mut PAGE: Table = Table([0; 512]);

fn read(address: u64) -> Outcome {
    attempt!("mov {address}, [{address}]"; address = inout(reg) address => _)
}

fn write(address: u64) -> Outcome {
    attempt!("mov qword ptr [{address}], 5"; address = in(reg) address)
}

fn wrpkru(value: u64) -> Outcome {
    attempt!("wrpkru"; in("eax") value as u32, in("ecx") 0, in("edx") 0)
}

fn rdpkru() -> u32 {
    let value;
    // SAFETY: the instruction reads a register, which exists while CR4.PKE is set.
    unsafe { asm!("rdpkru", out("eax") value, in("ecx") 0, out("edx") _, options(nomem, nostack)) };
    value
}

/// Sets each combination of rights, exits once, and then reads and writes the page.
fn rights(line: &mut Line, name: &str, place: u64, set: impl Fn(u64) -> Outcome) {
    for (right, value) in [("all", 0), ("no-write", NO_WRITE), ("no-access", NO_ACCESS)] {
        let outcome = set(value);
        cpuid(0x8000_0000, 0);
        let (read, wrote) = (read(place), write(place));
        line.item(format_args!("{name}-{right}"), format_args!("{}/{}/{}", Verdict(outcome), Verdict(read), Verdict(wrote)));
    }
    let _ = set(0);
}

/// Tries PKRU and IA32_PKRS, if the CPU has them.
pub fn keys(line: &mut Line) {
    let (user, supervisor) = (cpuid(7, 0)[2] >> 3 & 1 == 1, cpuid(7, 0)[2] >> 31 == 1);
    if !user && !supervisor {
        return line.item("lacks", "protection-keys");
    }
    // At CPL 0, write-disable forbids writes only if CR0.WP is set.
    let before = crate::cpu::cr0();
    let _ = crate::attempt::set_cr0(before | super::cet::CR0_WP);
    keeping_cr4(|| {
        if user {
            line.item("pke", Verdict(set_cr4(cr4() | CR4_PKE)));
            let place = window::show_user(physical(&raw const PAGE), USER_PAGE);
            rights(line, "user", place, wrpkru);
            let _ = wrpkru(NO_WRITE);
            line.item("pkru", format_args!("{:#x}", rdpkru()));
            let _ = wrpkru(0);
            line.item("pkru-bad", Verdict(attempt!("wrpkru"; in("eax") 0, in("ecx") 1, in("edx") 0)));
        }
        if supervisor {
            line.item("pks", Verdict(set_cr4(cr4() | CR4_PKS)));
            let [place] = [window::show_entries([physical(&raw const PAGE) | SUPERVISOR_PAGE])];
            rights(line, "supervisor", place, |value| wrmsr(IA32_PKRS, value));
            line.item("pkrs", format_args!("{}/{}", Verdict(wrmsr(IA32_PKRS, NO_WRITE)), Hex(rdmsr(IA32_PKRS))));
            line.item("pkrs-bad", Verdict(wrmsr(IA32_PKRS, 1 << 32)));
            let _ = wrmsr(IA32_PKRS, 0);
        }
        window::show(0);
    });
    let _ = crate::attempt::set_cr0(before);
}
