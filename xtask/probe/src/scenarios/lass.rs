//! Linear-address-space separation: code at CPL 3 may not access the upper half of the address space, whatever the page
//! tables say. Intel SDM Vol. 3A, 4.4 "Linear-Address-Space Separation (LASS)".

#![expect(unsafe_code, reason = "the code that runs at CPL 3 is assembly")]

use core::arch::naked_asm;

use crate::attempt::{Verdict, keeping_cr4, set_cr4};
use crate::cpu::{cpuid, cr4};
use crate::line::Line;
use crate::user;

const CR4_LASS: u64 = 1 << 27;

/// Ends the visit to CPL 3 at once. This code is in the upper half, like the whole image.
#[unsafe(naked)]
extern "C" fn at_cpl3() {
    naked_asm!("int 0x80")
}

/// Visits CPL 3 with LASS off and on, and executes CPUID with LASS on.
pub fn lass(line: &mut Line) {
    let [highest, ..] = cpuid(7, 0);
    if highest == 0 || cpuid(7, 1)[0] >> 6 & 1 == 0 {
        return line.item("lacks", "LASS");
    }
    // SAFETY: the function uses no stack, writes nothing and ends with INT 0x80.
    let visit = || Verdict(unsafe { user::visit(at_cpl3 as *const () as u64, 0) }.map(drop));
    line.item("off", visit());
    keeping_cr4(|| {
        line.item("set", Verdict(set_cr4(cr4() | CR4_LASS)));
        line.item("on", visit());
        line.item("cpuid", format_args!("{:#x}", cpuid(0x8000_0000, 0)[0]));
        line.item("cr4", format_args!("{:#x}", cr4()));
    });
    line.item("off-again", visit());
}
