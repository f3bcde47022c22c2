//! Changes of the CPU's mode, which a guest may make at any time and a hypervisor has to support.

#![expect(unsafe_code, reason = "assembly leaves and enters the modes")]

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

/// The address that modes.S is copied to.
const PLACE: *mut u8 = 0x8000 as *mut u8;
/// The size of the memory that modes.S uses.
const SIZE: usize = 3 * 4096;

/// Goes through all modes and back. Counts the steps in which CPUID worked, and compares the control registers before
/// and after.
pub fn modes(line: &mut Line) {
    static mut SAVED: [u8; SIZE] = [0; SIZE];
    let saved = (&raw mut SAVED).cast::<u8>();
    // The entry code's page directories that map the first 4 GiB are the fourth to seventh of its tables.
    let directories = physical(window::tables()) + 3 * 4096;
    let before = [cr0(), cr3(), cr4()];
    let (start, end) = (&raw const modes_start, &raw const modes_end);
    // SAFETY: every PC has RAM at these addresses, and its content is restored. Interrupts are off. The code is below 4
    // GiB, mapped to itself, and keeps to the calling convention.
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
