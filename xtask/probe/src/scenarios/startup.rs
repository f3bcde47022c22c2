//! Starting another CPU, the one whose APIC ID is 1: it counts that it was started, in real mode, and halts.

#![expect(unsafe_code, reason = "memory below 1 MiB is written, for the other CPU and by it")]

use core::arch::global_asm;

use crate::apic::Apic;
use crate::cpu::cpuid;
use crate::line::Line;
use crate::scenarios::quiet::Exits;

/// The page that the start-up IPI names.
const PAGE: u64 = 0x7000;
/// Where in it the other CPU counts, and leaves its CS.
const COUNT: u64 = 0x7800;
const CODE_SEGMENT: u64 = 0x7802;
/// Where it keeps the state of its FPU.
const FPU: u64 = 0x7a00;
const VECTOR: u8 = (PAGE >> 12) as u8;

const OTHER: u32 = 1;

/// How often CPUID is executed while the other CPU loads: far more often than a machine lived through.
const CPUIDS: u32 = 200_000;

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
    // It counts, and then loads the state of its FPU for ever.
    "startup_loads_begin:",
    "xor ax, ax",
    "mov ds, ax",
    "fninit",
    "fxsave ds:[{fpu}]",
    "inc word ptr ds:[{count}]",
    "2: fxrstor ds:[{fpu}]",
    "jmp 2b",
    "startup_loads_end:",
    // An exception with no table to look it up in.
    "startup_triple_begin:",
    ".byte 0x2e, 0x0f, 0x01, 0x1e", // lidt cs:[3f]
    ".short 3f - startup_triple_begin",
    "ud2",
    "3: .short 0, 0, 0",
    "startup_triple_end:",
    ".code64",
    code_segment = const CODE_SEGMENT,
    count = const COUNT,
    fpu = const FPU,
);

unsafe extern "C" {
    safe static startup_begin: [u8; 0];
    safe static startup_end: [u8; 0];
    safe static startup_loads_begin: [u8; 0];
    safe static startup_loads_end: [u8; 0];
    safe static startup_triple_begin: [u8; 0];
    safe static startup_triple_end: [u8; 0];
}

fn read(address: u64) -> u16 {
    // SAFETY: all below 4 GiB is mapped, and the page is the probe's.
    unsafe { (address as *const u16).read_volatile() }
}

/// Lays out the code between two labels for the other CPU.
fn prepare(begin: &'static [u8; 0], end: &'static [u8; 0]) -> Apic {
    let length = end.as_ptr() as usize - begin.as_ptr() as usize;
    // SAFETY: as in `read`.
    unsafe {
        core::ptr::copy(begin.as_ptr(), PAGE as *mut u8, length);
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
    let apic = prepare(&startup_begin, &startup_end);
    apic.startup(OTHER, VECTOR);
    line.item("first", counted(1));
    apic.startup(OTHER, VECTOR);
    line.item("second", counted(2));
    line.item("cs", format_args!("{:#x}", read(CODE_SEGMENT)));
}

/// INIT takes a CPU wherever it is, and the next start-up IPI starts it.
pub fn init_sipi(line: &mut Line) {
    start_again(line, &prepare(&startup_begin, &startup_end));
}

/// The same in x2APIC mode.
pub fn by_x2apic(line: &mut Line) {
    let mut apic = prepare(&startup_begin, &startup_end);
    apic.enter_x2apic_mode();
    start_again(line, &apic);
}

/// A triple fault of the other CPU, while this one goes on.
pub fn triple(line: &mut Line) {
    let apic = prepare(&startup_triple_begin, &startup_triple_end);
    apic.init(OTHER);
    apic.startup(OTHER, VECTOR);
    for _ in 0..100_000_000 {
        core::hint::spin_loop();
    }
    line.word("survived");
}

/// This CPU executes CPUID, which exits, while the other one loads the state of its FPU. In QEMU that loses the machine if
/// each CPU has a thread of its own.
pub fn fpu_loads(line: &mut Line) {
    let apic = prepare(&startup_loads_begin, &startup_loads_end);
    apic.init(OTHER);
    apic.startup(OTHER, VECTOR);
    line.item("loads", counted(1));
    for _ in 0..CPUIDS {
        cpuid(0, 0);
    }
    line.item("cpuids", CPUIDS);
}

fn start_again(line: &mut Line, apic: &Apic) {
    // The first touch of the APIC's page is an exit, after which it is mapped.
    apic.init(OTHER);
    let exits = Exits::of(|| {
        for round in 1..=3 {
            apic.init(OTHER);
            // Even as often as this.
            apic.init(OTHER);
            apic.startup(OTHER, VECTOR);
            line.item("started", counted(round));
            apic.startup(OTHER, VECTOR);
            line.item("still", counted(round + 1));
        }
    });
    line.item("cs", format_args!("{:#x}", read(CODE_SEGMENT)));
    line.item("exits", exits);
}
