//! Supervisor state components: IA32_XSS, and what XSAVES and XRSTORS do with it. Their state is the guest's alone.
//!
//! Intel SDM Vol. 1, 13.11 "Operation of XSAVES" and 13.12 "Operation of XRSTORS".

#![expect(unsafe_code, reason = "a save area is memory that the CPU writes")]

use super::cet::{PL0_SSP, U_CET, has_shadow_stacks};
use super::xstate::{CR4_OSXSAVE, Area};
use crate::attempt::{Hex, Outcome, Shown, attempt, keeping_cr4, rdmsr, set_cr4, wrmsr, xsetbv};
use crate::cpu::{cpuid, cr4};
use crate::line::Line;

const IA32_XSS: u32 = 0xda0;
/// The state of CET for CPL 3: U_CET and PL3_SSP.
const CET_USER: u64 = 1 << 11;
/// The stack pointers of CPL 0 to 2.
const CET_KERNEL: u64 = 1 << 12;
/// XCOMP_BV: the area is compacted.
const COMPACTED: u64 = 1 << 63;

static mut AREA: Area = Area::ZERO;

fn xsaves(mask: u64) -> Outcome {
    let area = &raw mut AREA;
    attempt!("xsaves64 [rdi]"; in("rdi") area, in("eax") mask as u32, in("edx") (mask >> 32) as u32)
}

fn xrstors(mask: u64) -> Outcome {
    let area = &raw mut AREA;
    attempt!("xrstors64 [rdi]"; in("rdi") area, in("eax") mask as u32, in("edx") (mask >> 32) as u32)
}

/// A word of the area's header, which begins at byte 512: XSTATE_BV, then XCOMP_BV.
fn header(word: usize) -> *mut u64 {
    (&raw mut AREA).cast::<u64>().wrapping_add(64 + word)
}

/// Which bits IA32_XSS takes, how large the state then is, and the way of each component to memory and back. Between the two the
/// guest leaves to the hypervisor.
pub fn supervisor_state(line: &mut Line) {
    if cpuid(0xd, 0)[0] == 0 || cpuid(0xd, 1)[0] >> 3 & 1 == 0 {
        return line.item("lacks", "XSAVES");
    }
    let [_, _, low, high] = cpuid(0xd, 1);
    let supported = u64::from(high) << 32 | u64::from(low);
    line.item("supported", format_args!("{supported:#x}"));
    line.item("without-osxsave", Shown(xsaves(1)));
    keeping_cr4(|| {
        let _ = set_cr4(cr4() | CR4_OSXSAVE);
        line.item("start", Hex(rdmsr(IA32_XSS)));
        let taken = (0..64).filter(|bit| wrmsr(IA32_XSS, 1 << bit).is_ok()).fold(0_u64, |all, bit| all | 1 << bit);
        line.item("taken", format_args!("{taken:#x}"));
        line.item("all", format_args!("{}/{}", Shown(wrmsr(IA32_XSS, supported)), Hex(rdmsr(IA32_XSS))));
        for bit in 2..64 {
            if supported >> bit & 1 == 1 {
                let [size, offset, flags, _] = cpuid(0xd, bit);
                line.item(format_args!("component-{bit}"), format_args!("{size:#x}/{offset:#x}/{flags:#x}"));
            }
        }
        line.item("size", format_args!("{:#x}", cpuid(0xd, 1)[1]));
        components(line, supported);
        // It is 0 after a reset, so it may be 0 again.
        let _ = wrmsr(IA32_XSS, 0);
        line.item("size-without", format_args!("{:#x}", cpuid(0xd, 1)[1]));
        let _ = xsetbv(0, 1);
    });
}

/// Writes each MSR by its value.
fn put(msrs: &[(u32, u64)], value: impl Fn(u64) -> u64) {
    for (msr, usual) in msrs {
        let _ = wrmsr(*msr, value(*usual));
    }
}

fn components(line: &mut Line, supported: u64) {
    let cet = supported & (CET_USER | CET_KERNEL);
    let msrs = [(U_CET, 1), (PL0_SSP + 3, 0x3000), (PL0_SSP, 0x1000), (PL0_SSP + 1, 0x1100), (PL0_SSP + 2, 0x1200)];
    if cet != 0 && has_shadow_stacks() {
        put(&msrs, |value| value);
        line.item("saved", Shown(xsaves(cet)));
        // SAFETY: inside of the area.
        let (state, compact) = unsafe { (header(0).read_volatile(), header(1).read_volatile()) };
        line.item("header", format_args!("{state:#x}/{compact:#x}"));
        put(&msrs, |_| 0);
        line.item("xss", Hex(rdmsr(IA32_XSS)));
        line.item("restored", Shown(xrstors(cet)));
        let kept = msrs.iter().all(|(msr, value)| rdmsr(*msr) == Ok(*value));
        line.item("cet", if kept { "kept" } else { "lost" });
        // A component that is not in the area goes back to its initial state.
        // SAFETY: as above.
        unsafe { header(0).write_volatile(0) };
        line.item("initial", Shown(xrstors(cet)));
        let clear = msrs.iter().all(|(msr, _)| rdmsr(*msr) == Ok(0));
        line.item("cet-then", if clear { "zero" } else { "other" });
        put(&msrs, |_| 0);
    }
    // SAFETY: as above.
    unsafe { (header(0).write_volatile(0), header(1).write_volatile(COMPACTED | 1 << 62)) };
    line.item("bad-component", Shown(xrstors(supported)));
    // SAFETY: as above.
    unsafe { header(1).write_volatile(0) };
    line.item("not-compacted", Shown(xrstors(supported)));
}
