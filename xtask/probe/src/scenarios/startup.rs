//! Starts another CPU, whose APIC ID is 1. In real mode, that CPU counts how often it has been started, and halts.

#![expect(unsafe_code, reason = "the other CPU's code and data are in memory below 1 MiB")]

use core::arch::{asm, global_asm};

use crate::apic::{ASSERT, Apic, NMI, STARTUP, timer_once};
use crate::cpu::cpuid;
use crate::line::Line;
use crate::scenarios::hypercall;
use crate::scenarios::quiet::Exits;

/// The page that the start-up IPI names.
const PAGE: u64 = 0x7000;
/// The address of the other CPU's counter.
const COUNT: u64 = 0x7800;
/// The address at which the other CPU stores its CS.
const CODE_SEGMENT: u64 = 0x7802;
/// The address of the state that the other CPU loads into its FPU.
const FPU: u64 = 0x7a00;
const VECTOR: u8 = (PAGE >> 12) as u8;

/// The APIC ID of the other CPU.
const OTHER: u32 = 1;

/// The number of times that CPUID is executed while the other CPU loads its FPU. The fault in QEMU occurs after far
/// fewer.
const CPUIDS: u32 = 200_000;

/// The number of times that the other CPU executes CPUID in page 0.
const FIRST_CPUIDS: u64 = 1000;
/// The address of the counter for the code in page 0. A CPU that runs outside of Vidar sees other memory in the pages
/// from 1 to 9FH than the guest does.
const FIRST_COUNT: u64 = 0x80;

/// The address at which the same code is the handler of NMIs, after the BIOS's data.
const FIRST_HANDLER: u64 = 0x600;
/// The address of the vector of NMIs in real mode.
const NMI_VECTOR: u64 = 8;

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
    // This code counts, and then loads the state of the FPU for ever.
    "startup_loads_begin:",
    "xor ax, ax",
    "mov ds, ax",
    "fninit",
    "fxsave ds:[{fpu}]",
    "inc word ptr ds:[{count}]",
    "2: fxrstor ds:[{fpu}]",
    "jmp 2b",
    "startup_loads_end:",
    // This code counts, and then hangs. Interrupts are off, as INIT leaves them.
    "startup_hangs_begin:",
    "xor ax, ax",
    "mov ds, ax",
    "inc word ptr ds:[{count}]",
    "2: jmp 2b",
    "startup_hangs_end:",
    // This code raises an exception while the interrupt descriptor table is empty.
    "startup_triple_begin:",
    ".byte 0x2e, 0x0f, 0x01, 0x1e", // lidt cs:[3f]
    ".short 3f - startup_triple_begin",
    "ud2",
    "3: .short 0, 0, 0",
    "startup_triple_end:",
    // This code is for page 0, at any address. It executes CPUID often, which exits in a guest, and counts then.
    "startup_first_begin:",
    "xor ax, ax",
    "mov ds, ax",
    "mov di, {first_cpuids}",
    "2: xor eax, eax",
    "cpuid",
    "dec di",
    "jnz 2b",
    "inc word ptr ds:[{first_count}]",
    "2: cli",
    "hlt",
    "jmp 2b",
    "startup_first_end:",
    ".code64",
    first_cpuids = const FIRST_CPUIDS,
    first_count = const FIRST_COUNT,
    code_segment = const CODE_SEGMENT,
    count = const COUNT,
    fpu = const FPU,
);

unsafe extern "C" {
    safe static startup_begin: [u8; 0];
    safe static startup_end: [u8; 0];
    safe static startup_loads_begin: [u8; 0];
    safe static startup_loads_end: [u8; 0];
    safe static startup_hangs_begin: [u8; 0];
    safe static startup_hangs_end: [u8; 0];
    safe static startup_triple_begin: [u8; 0];
    safe static startup_triple_end: [u8; 0];
    safe static startup_first_begin: [u8; 0];
    safe static startup_first_end: [u8; 0];
}

fn read(address: u64) -> u16 {
    // SAFETY: all memory below 4 GiB is mapped, and only the probe uses this page.
    unsafe { (address as *const u16).read_volatile() }
}

/// Copies the code between two labels to the page of the other CPU.
fn prepare(begin: &'static [u8; 0], end: &'static [u8; 0]) -> Apic {
    let length = end.as_ptr() as usize - begin.as_ptr() as usize;
    // SAFETY: as in `read`.
    unsafe {
        core::ptr::copy(begin.as_ptr(), PAGE as *mut u8, length);
        (COUNT as *mut u32).write_volatile(0);
    }
    Apic::find()
}

/// Waits until the other CPU has counted to `wanted`, for a limited time. Returns its count.
fn counted(wanted: u16) -> u16 {
    counted_at(COUNT, wanted)
}

/// Does the same as [`counted`] for the counter at `address`.
fn counted_at(address: u64, wanted: u16) -> u16 {
    for _ in 0..3_000_000 {
        if read(address) >= wanted {
            break;
        }
        core::hint::spin_loop();
    }
    read(address)
}

/// Sends two start-up IPIs to a CPU that waits for one. Only the first may start it.
pub fn sipi(line: &mut Line) {
    let apic = prepare(&startup_begin, &startup_end);
    apic.startup(OTHER, VECTOR);
    line.item("first", counted(1));
    apic.startup(OTHER, VECTOR);
    line.item("second", counted(2));
    line.item("cs", format_args!("{:#x}", read(CODE_SEGMENT)));
}

/// Sends INIT to a CPU that runs. The next start-up IPI must start it again.
pub fn init_sipi(line: &mut Line) {
    start_again(line, &prepare(&startup_begin, &startup_end));
}

/// Does the same as [`init_sipi`] in x2APIC mode.
pub fn by_x2apic(line: &mut Line) {
    let mut apic = prepare(&startup_begin, &startup_end);
    apic.enter_x2apic_mode();
    start_again(line, &apic);
}

/// Causes a triple fault on the other CPU, while this one keeps running.
pub fn triple(line: &mut Line) {
    let apic = prepare(&startup_triple_begin, &startup_triple_end);
    apic.init(OTHER);
    apic.startup(OTHER, VECTOR);
    for _ in 0..100_000_000 {
        core::hint::spin_loop();
    }
    line.word("survived");
}

/// Asks Vidar to end the guest while the other CPU hangs with interrupts off.
pub fn hangs(line: &mut Line) {
    let apic = prepare(&startup_hangs_begin, &startup_hangs_end);
    apic.init(OTHER);
    apic.startup(OTHER, VECTOR);
    line.item("hangs", counted(1));
    hypercall::crash(line);
}

/// Executes CPUID, which exits, while the other CPU loads the state of its FPU. QEMU crashes the machine if each CPU
/// has a thread of its own.
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

/// Starts the other CPU at the first page of memory, and says if the exits of its instructions are counted: they are
/// not where it runs outside of Vidar.
pub fn first_page(line: &mut Line) {
    let apic = Apic::find();
    prepare_first_page(0);
    // The other CPU waits for its first start-up IPI, so it needs no INIT.
    let exits = Exits::of(|| {
        apic.startup(OTHER, 0);
        line.item("started", counted_at(FIRST_COUNT, 1));
    });
    line.item("exits-counted", exits.are_at_least(FIRST_CPUIDS));
}

/// Sends the other CPU an INIT, and then start-up messages that no local APIC sends: one as a device does,
/// and one from a pin of the I/O APIC. If neither starts it, starts it as usual.
pub fn start_up_messages(line: &mut Line) {
    let apic = prepare(&startup_begin, &startup_end);
    let message = STARTUP | u32::from(VECTOR);
    apic.init(OTHER);
    apic.send_as_device(OTHER, message);
    line.item("by-device", counted(1));
    by_pin(&apic, message);
    line.item("by-pin", counted(1));
    if read(COUNT) == 0 {
        apic.startup(OTHER, VECTOR);
        line.item("started", counted(1));
    }
}

/// Has the timer's pin of the I/O APIC send the other CPU a message.
fn by_pin(apic: &Apic, message: u32) {
    apic.timer_to(OTHER, Some(message));
    timer_once(1000);
    for _ in 0..300_000 {
        core::hint::spin_loop();
    }
    apic.timer_to(OTHER, None);
}

/// Copies the code for the first page to `address` there.
fn prepare_first_page(address: u64) {
    let (begin, end) = (startup_first_begin.as_ptr(), startup_first_end.as_ptr());
    // SAFETY: the page is mapped, and holds the interrupt vectors of real mode, which nobody uses any more. Rust's own
    // functions may not write to address 0.
    unsafe {
        asm!(
            "rep movsb",
            inout("rsi") begin => _,
            inout("rdi") address => _,
            inout("rcx") end as usize - begin as usize => _,
            options(nostack, preserves_flags),
        );
        (FIRST_COUNT as *mut u16).write_volatile(0);
    }
}

/// Has the vector of NMIs in the first page lead to code that counts, and sends the other CPU an NMI while it waits for
/// its start-up IPI, and again right before that. Where the table of vectors is the guest's, the CPU executes the code
/// outside of Vidar. Where it is not, the CPU starts as usual, and takes its next NMI in the guest.
pub fn first_vectors(line: &mut Line) {
    let apic = prepare(&startup_begin, &startup_end);
    prepare_first_page(FIRST_HANDLER);
    // SAFETY: as in `prepare_first_page`.
    unsafe { (NMI_VECTOR as *mut u32).write_volatile(FIRST_HANDLER as u32) };
    let nmi = || apic.send(OTHER, NMI | ASSERT);
    apic.init(OTHER);
    nmi();
    line.item("away", counted_at(FIRST_COUNT, 1));
    apic.init(OTHER);
    nmi();
    apic.startup(OTHER, VECTOR);
    line.item("started", counted(1));
    line.item("away", counted_at(FIRST_COUNT, 1));
    apic.init(OTHER);
    apic.startup(OTHER, VECTOR);
    line.item("again", counted(2));
    let exits = Exits::of(|| {
        nmi();
        line.item("nmis", counted_at(FIRST_COUNT, 1));
    });
    line.item("exits-counted", exits.are_at_least(FIRST_CPUIDS));
}

fn start_again(line: &mut Line, apic: &Apic) {
    // The first access to the local APIC's page exits, and maps the page. It is not to be counted.
    apic.init(OTHER);
    let exits = Exits::of(|| {
        for round in 1..=3 {
            apic.init(OTHER);
            // A second INIT must make no difference.
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
