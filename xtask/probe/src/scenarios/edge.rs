//! CPUID as the last instruction of an address space: whoever executes it in the guest's place must know where the
//! next one is.

#![expect(unsafe_code, reason = "code is put where no program has any")]

use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::attempt::{Outcome, Shown, attempt};
use crate::frame::Frame;
use crate::gdt::{KERNEL_CODE, KERNEL_CODE_32};
use crate::handlers::handling;
use crate::image::physical;
use crate::line::Line;
use crate::window;

#[repr(C, align(4096))]
struct Page<T>(T);

/// A page that ends with CPUID.
static mut CODE: Page<[u8; 4096]> = Page([0x90; 4096]);
/// The tables of the last page below the gap in the middle of the address space, and of the last page below 4 GiB.
static mut POINTERS: Page<[u64; 512]> = Page([0; 512]);
static mut DIRECTORY: Page<[u64; 512]> = Page([0; 512]);
static mut LEAVES: Page<[u64; 512]> = Page([0; 512]);

/// Present, writable, accessed, dirty.
const ENTRY: u64 = 0x63;

const LAST: usize = 511;
const CPUID: [u8; 2] = [0x0f, 0xa2];
/// INT 0x81, which waits at address 0.
const INT: [u8; 2] = [0xcd, VECTOR];
const VECTOR: u8 = 0x81;

static LANDING: AtomicU64 = AtomicU64::new(0);
static STACK: AtomicU64 = AtomicU64::new(0);
static CAME_FROM: AtomicU64 = AtomicU64::new(0);

/// The wrap went well: back to 64-bit code.
fn on_return(frame: &mut Frame) {
    CAME_FROM.store(frame.rip, Relaxed);
    frame.rip = LANDING.load(Relaxed);
    frame.cs = u64::from(KERNEL_CODE);
    frame.rsp = STACK.load(Relaxed);
}

fn flush() {
    // SAFETY: loads what is loaded already, to forget what the CPU has cached of the tables.
    unsafe { asm!("mov {s}, cr3", "mov cr3, {s}", s = out(reg) _, options(nostack, preserves_flags)) };
}

/// CPUID before the gap of addresses that are not canonical: bare, the next fetch is #GP. Then at the end of 32-bit
/// addresses, in compatibility mode: the next instruction is at 0.
pub fn edge(line: &mut Line) {
    let (code, leaves) = (&raw mut CODE, &raw mut LEAVES);
    let (pointers, directory) = (&raw mut POINTERS, &raw mut DIRECTORY);
    let top = window::tables().cast_mut().cast::<u64>();
    // SAFETY: one CPU; the tables and the page are reached only here, and the entries map nothing that is in use.
    unsafe {
        code.cast::<u8>().add(4094).cast::<[u8; 2]>().write(CPUID);
        (*leaves).0[LAST] = physical(code) | ENTRY;
        (*directory).0[LAST] = physical(leaves) | ENTRY;
        (*pointers).0[LAST] = physical(directory) | ENTRY;
        top.add(255).write_volatile(physical(pointers) | ENTRY);
    }
    flush();
    line.item("canonical", Shown(before_the_gap()));

    // The entry for the last 2 MiB below 4 GiB, in the last of the directories of the entry code.
    // SAFETY: the fourth to seventh of the tables are the directories.
    let entry = unsafe { top.add(6 * 512 + LAST) };
    // SAFETY: firmware lies in these 2 MiB, and nobody asks it anything meanwhile.
    let firmware = unsafe { entry.replace(physical(leaves) | ENTRY) };
    flush();
    let zero = window::show(0) as *mut [u8; 2];
    // SAFETY: RAM in every PC; it gets its content back.
    let interrupt_vectors = unsafe { zero.replace(INT) };
    CAME_FROM.store(0, Relaxed);
    let outcome = handling(VECTOR, on_return, before_the_wrap);
    // SAFETY: puts back what was there.
    unsafe {
        zero.write(interrupt_vectors);
        entry.write(firmware);
    }
    flush();
    line.item("wrap", format_args!("{}/{:#x}", Shown(outcome), CAME_FROM.load(Relaxed)));
}

fn before_the_gap() -> Outcome {
    attempt!(
        "mov r13, rbx",
        "jmp {target}",
        "99:",
        "mov rbx, r13";
        target = in(reg) 0x0000_7fff_ffff_fffe_u64,
        inout("rax") 0x8000_0000_u64 => _, out("rcx") _, out("rdx") _, out("r13") _
    )
}

fn before_the_wrap() -> Outcome {
    // Compatibility mode has 32 bits for its stack pointer: the same memory where it lies.
    static mut LOW_STACK: Page<[u64; 512]> = Page([0; 512]);
    let low_stack = physical(&raw const LOW_STACK) + 4096;
    attempt!(
        "push rbx",
        "push rbp",
        "lea r11, [rip + 99f]",
        "mov [rip + {landing}], r11",
        "mov [rip + {stack}], rsp",
        "mov rsp, r10",
        "push r8",
        "push r9",
        "retfq",
        "99:",
        "mov rsp, [rip + {stack}]",
        "pop rbp",
        "pop rbx";
        inout("r8") u64::from(KERNEL_CODE_32) => _, inout("r9") 0xffff_fffe_u64 => _,
        inout("r10") low_stack => _, out("r11") _,
        landing = sym LANDING,
        stack = sym STACK,
        // The upper halves of the others are not kept in compatibility mode.
        inout("rax") 0x8000_0000_u64 => _, out("rcx") _, out("rdx") _, out("rsi") _,
        out("r12") _, out("r13") _, out("r14") _, out("r15") _
    )
}
