//! Linear-address-space separation: code of CPL 3 has no business in the upper half, whatever the page tables say. Intel SDM Vol.
//! 3A, 4.4 "Linear-Address-Space Separation (LASS)".

#![expect(unsafe_code, reason = "the probe visits CPL 3")]

use core::arch::naked_asm;

use crate::attempt::{Shown, keeping_cr4, set_cr4};
use crate::cpu::{cpuid, cr4};
use crate::line::Line;
use crate::user;

const CR4_LASS: u64 = 1 << 27;

/// Any code that comes back; it lies in the upper half, as the whole image does.
#[unsafe(naked)]
extern "C" fn at_cpl3() {
    naked_asm!("int 0x80")
}

/// A visit to CPL 3 with LASS off and on, and CPUID with it on.
pub fn lass(line: &mut Line) {
    let [highest, ..] = cpuid(7, 0);
    if highest == 0 || cpuid(7, 1)[0] >> 6 & 1 == 0 {
        return line.item("lacks", "LASS");
    }
    // SAFETY: the function uses no stack, writes nothing and ends with INT 0x80.
    let visit = || Shown(unsafe { user::visit(at_cpl3 as *const () as u64, 0) }.map(drop));
    line.item("off", visit());
    keeping_cr4(|| {
        line.item("set", Shown(set_cr4(cr4() | CR4_LASS)));
        line.item("on", visit());
        line.item("cpuid", format_args!("{:#x}", cpuid(0x8000_0000, 0)[0]));
        line.item("cr4", format_args!("{:#x}", cr4()));
    });
    line.item("off-again", visit());
}
