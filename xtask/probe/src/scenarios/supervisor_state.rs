//! Supervisor state components, which IA32_XSS enables for XSAVES and XRSTORS. Their state belongs to the guest alone.
//!
//! Intel SDM Vol. 1, 13.11 "Operation of XSAVES" and 13.12 "Operation of XRSTORS".

#![expect(unsafe_code, reason = "a save area is memory that the CPU writes")]

use super::cet::{PL0_SSP, U_CET, has_shadow_stacks};
use super::xstate::{CR4_OSXSAVE, Area};
use crate::attempt::{Hex, Outcome, Verdict, attempt, keeping_cr4, rdmsr, set_cr4, wrmsr, xsetbv};
use crate::cpu::{cpuid, cr4};
use crate::line::Line;

const IA32_XSS: u32 = 0xda0;
/// The component of CET at CPL 3: U_CET and PL3_SSP.
const CET_USER: u64 = 1 << 11;
/// The component of CET at CPL 0 to 2: PL0_SSP, PL1_SSP and PL2_SSP.
const CET_KERNEL: u64 = 1 << 12;
/// The bit of XCOMP_BV that says that the area is compacted.
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

/// Returns the address of a word of the area's header, which begins at byte 512. Word 0 is XSTATE_BV, and word 1 is
/// XCOMP_BV.
fn header(word: usize) -> *mut u64 {
    (&raw mut AREA).cast::<u64>().wrapping_add(64 + word)
}

/// Finds out which bits can be set in IA32_XSS and how large the state then is. Then saves the components, exits, and
/// restores them.
pub fn supervisor_state(line: &mut Line) {
    if cpuid(0xd, 0)[0] == 0 || cpuid(0xd, 1)[0] >> 3 & 1 == 0 {
        return line.item("lacks", "XSAVES");
    }
    let [_, _, low, high] = cpuid(0xd, 1);
    let supported = u64::from(high) << 32 | u64::from(low);
    line.item("supported", format_args!("{supported:#x}"));
    line.item("without-osxsave", Verdict(xsaves(1)));
    keeping_cr4(|| {
        let _ = set_cr4(cr4() | CR4_OSXSAVE);
        line.item("start", Hex(rdmsr(IA32_XSS)));
        let taken = (0..64).filter(|bit| wrmsr(IA32_XSS, 1 << bit).is_ok()).fold(0_u64, |all, bit| all | 1 << bit);
        line.item("taken", format_args!("{taken:#x}"));
        line.item("all", format_args!("{}/{}", Verdict(wrmsr(IA32_XSS, supported)), Hex(rdmsr(IA32_XSS))));
        for bit in 2..64 {
            if supported >> bit & 1 == 1 {
                let [size, offset, flags, _] = cpuid(0xd, bit);
                line.item(format_args!("component-{bit}"), format_args!("{size:#x}/{offset:#x}/{flags:#x}"));
            }
        }
        line.item("size", format_args!("{:#x}", cpuid(0xd, 1)[1]));
        components(line, supported);
        // This cannot fault: IA32_XSS is 0 after a reset.
        let _ = wrmsr(IA32_XSS, 0);
        line.item("size-without", format_args!("{:#x}", cpuid(0xd, 1)[1]));
        let _ = xsetbv(0, 1);
    });
}

/// Writes to each MSR what `value` makes of its usual value.
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
        line.item("saved", Verdict(xsaves(cet)));
        // SAFETY: the words are inside of the area.
        let (state, compact) = unsafe { (header(0).read_volatile(), header(1).read_volatile()) };
        line.item("header", format_args!("{state:#x}/{compact:#x}"));
        put(&msrs, |_| 0);
        line.item("xss", Hex(rdmsr(IA32_XSS)));
        line.item("restored", Verdict(xrstors(cet)));
        let kept = msrs.iter().all(|(msr, value)| rdmsr(*msr) == Ok(*value));
        line.item("cet", if kept { "kept" } else { "lost" });
        // XRSTORS sets a component that is not in the area to its initial state.
        // SAFETY: the word is inside of the area.
        unsafe { header(0).write_volatile(0) };
        line.item("initial", Verdict(xrstors(cet)));
        let clear = msrs.iter().all(|(msr, _)| rdmsr(*msr) == Ok(0));
        line.item("cet-then", if clear { "zero" } else { "other" });
        put(&msrs, |_| 0);
    }
    // SAFETY: the words are inside of the area.
    unsafe { (header(0).write_volatile(0), header(1).write_volatile(COMPACTED | 1 << 62)) };
    line.item("bad-component", Verdict(xrstors(supported)));
    // SAFETY: the word is inside of the area.
    unsafe { header(1).write_volatile(0) };
    line.item("not-compacted", Verdict(xrstors(supported)));
}
