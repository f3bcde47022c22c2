//! Starting another CPU, the one whose APIC ID is 1: it counts that it was started, in real mode, and halts.

#![expect(unsafe_code, reason = "memory below 1 MiB is written, for the other CPU and by it")]

use core::arch::global_asm;

use crate::apic::Apic;
use crate::line::Line;

/// The page that the start-up IPI names.
const PAGE: u64 = 0x7000;
/// Where in it the other CPU counts, and leaves its CS.
const COUNT: u64 = 0x7800;
const CODE_SEGMENT: u64 = 0x7802;
const VECTOR: u8 = (PAGE >> 12) as u8;

const OTHER: u32 = 1;

global_asm!(
    ".section .rodata.startup, \"a\"",
    ".code16",
    "startup_begin:",
    "xor ax, ax",
    "mov ds, ax",
    "mov word ptr ds:[{code_segment}], cs",
    "inc word ptr ds:[{count}]",
    "2: cli",
    "hlt",
    "jmp 2b",
    "startup_end:",
    ".code64",
    code_segment = const CODE_SEGMENT,
    count = const COUNT,
);

unsafe extern "C" {
    safe static startup_begin: [u8; 0];
    safe static startup_end: [u8; 0];
}

fn read(address: u64) -> u16 {
    // SAFETY: all below 4 GiB is mapped, and the page is the probe's.
    unsafe { (address as *const u16).read_volatile() }
}

fn prepare() -> Apic {
    let length = startup_end.as_ptr() as usize - startup_begin.as_ptr() as usize;
    // SAFETY: as in `read`.
    unsafe {
        core::ptr::copy(startup_begin.as_ptr(), PAGE as *mut u8, length);
        (COUNT as *mut u32).write_volatile(0);
    }
    Apic::find()
}

/// Waits until the other CPU has counted to `wanted`, or long enough.
fn counted(wanted: u16) -> u16 {
    for _ in 0..3_000_000 {
        if read(COUNT) >= wanted {
            break;
        }
        core::hint::spin_loop();
    }
    read(COUNT)
}

/// A CPU that waits is started once by start-up IPIs.
pub fn sipi(line: &mut Line) {
    let apic = prepare();
    apic.startup(OTHER, VECTOR);
    line.item("first", counted(1));
    apic.startup(OTHER, VECTOR);
    line.item("second", counted(2));
    line.item("cs", format_args!("{:#x}", read(CODE_SEGMENT)));
}

/// INIT takes a CPU wherever it is, and the next start-up IPI starts it.
pub fn init_sipi(line: &mut Line) {
    let apic = prepare();
    for round in 1..=3 {
        apic.init(OTHER);
        // Even as often as this.
        apic.init(OTHER);
        apic.startup(OTHER, VECTOR);
        line.item("started", counted(round));
        apic.startup(OTHER, VECTOR);
        line.item("still", counted(round + 1));
    }
    line.item("cs", format_args!("{:#x}", read(CODE_SEGMENT)));
}
