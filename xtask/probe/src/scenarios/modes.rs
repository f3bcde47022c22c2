//! The modes of the CPU: the guest may go from one to another as it likes, and a hypervisor has to follow.

#![expect(unsafe_code, reason = "the modes are left and entered by assembly")]

use core::arch::global_asm;

use crate::cpu::{cr0, cr3, cr4};
use crate::image::physical;
use crate::line::Line;
use crate::window;

global_asm!(include_str!("modes.S"), options(att_syntax));

unsafe extern "C" {
    static modes_start: u8;
    static modes_end: u8;
}

/// Where modes.S runs, and how much it uses.
const PLACE: *mut u8 = 0x8000 as *mut u8;
const SIZE: usize = 3 * 4096;

/// Through all modes and back: in how many steps of the way CPUID worked, and whether all is again as it was.
pub fn modes(line: &mut Line) {
    static mut SAVED: [u8; SIZE] = [0; SIZE];
    let saved = (&raw mut SAVED).cast::<u8>();
    // The page directories of the entry code map the first 4 GiB; they are the fourth to seventh of its tables.
    let directories = physical(window::tables()) + 3 * 4096;
    let before = [cr0(), cr3(), cr4()];
    let (start, end) = (&raw const modes_start, &raw const modes_end);
    // SAFETY: the memory is RAM of every PC, and gets its content back. Interrupts are off, the code is below 4 GiB and
    // mapped where it lies, and it keeps to the calling convention.
    let steps = unsafe {
        PLACE.copy_to_nonoverlapping(saved, SIZE);
        start.copy_to_nonoverlapping(PLACE, end.offset_from_unsigned(start));
        let run = core::mem::transmute::<*mut u8, extern "C" fn(u64) -> u32>(PLACE);
        let steps = run(directories);
        saved.copy_to_nonoverlapping(PLACE, SIZE);
        steps
    };
    line.item("steps", steps);
    let after = [cr0(), cr3(), cr4()];
    if after == before {
        line.item("registers", "same");
    } else {
        line.item("registers", format_args!("{before:x?}/{after:x?}"));
    }
}
