//! CPUID as the last instruction of an address space. A hypervisor that executes it in the guest's place must compute
//! the address of the next instruction correctly.

#![expect(unsafe_code, reason = "code is written to unusual addresses and executed there")]

use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::attempt::{Outcome, Verdict, attempt};
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
/// The page tables of the last page below the non-canonical addresses, and of the last page below 4 GiB.
static mut POINTERS: Page<[u64; 512]> = Page([0; 512]);
static mut DIRECTORY: Page<[u64; 512]> = Page([0; 512]);
static mut LEAVES: Page<[u64; 512]> = Page([0; 512]);

/// Flags of an entry: present, writable, accessed, dirty.
const ENTRY: u64 = 0x63;

const LAST: usize = 511;
const CPUID: [u8; 2] = [0x0f, 0xa2];
/// INT 0x81, which is written to address 0.
const INT: [u8; 2] = [0xcd, VECTOR];
const VECTOR: u8 = 0x81;

/// The address of the 64-bit code to return to.
static LANDING: AtomicU64 = AtomicU64::new(0);
/// The stack pointer of that code.
static STACK: AtomicU64 = AtomicU64::new(0);
/// The address after the INT that was executed.
static CAME_FROM: AtomicU64 = AtomicU64::new(0);

/// Handles the INT at address 0, which is executed if the address wrapped around: returns to the 64-bit code.
fn on_return(frame: &mut Frame) {
    CAME_FROM.store(frame.rip, Relaxed);
    frame.rip = LANDING.load(Relaxed);
    frame.cs = u64::from(KERNEL_CODE);
    frame.rsp = STACK.load(Relaxed);
}

fn flush() {
    // SAFETY: CR3 keeps its value. Loading it flushes what the CPU has cached of the page tables.
    unsafe { asm!("mov {s}, cr3", "mov cr3, {s}", s = out(reg) _, options(nostack, preserves_flags)) };
}

/// Executes CPUID right before the non-canonical addresses: on a bare machine the next fetch raises #GP. Then executes
/// CPUID at the end of the 32-bit addresses, in compatibility mode: the next instruction is at address 0.
pub fn edge(line: &mut Line) {
    let (code, leaves) = (&raw mut CODE, &raw mut LEAVES);
    let (pointers, directory) = (&raw mut POINTERS, &raw mut DIRECTORY);
    let top = window::tables().cast_mut().cast::<u64>();
    // SAFETY: one CPU runs, only this function uses the tables and the page, and the entry maps addresses that nothing
    // uses.
    unsafe {
        code.cast::<u8>().add(4094).cast::<[u8; 2]>().write(CPUID);
        (*leaves).0[LAST] = physical(code) | ENTRY;
        (*directory).0[LAST] = physical(leaves) | ENTRY;
        (*pointers).0[LAST] = physical(directory) | ENTRY;
        top.add(255).write_volatile(physical(pointers) | ENTRY);
    }
    flush();
    line.item("canonical", Verdict(before_the_gap()));

    // The entry of the last 2 MiB below 4 GiB is in the last of the entry code's directories.
    // SAFETY: the fourth to seventh of the entry code's tables are these directories.
    let entry = unsafe { top.add(6 * 512 + LAST) };
    // SAFETY: these 2 MiB hold firmware, which nothing uses until the entry is restored.
    let firmware = unsafe { entry.replace(physical(leaves) | ENTRY) };
    flush();
    let zero = window::show(0) as *mut [u8; 2];
    // SAFETY: every PC has RAM at address 0, and its content is restored.
    let interrupt_vectors = unsafe { zero.replace(INT) };
    CAME_FROM.store(0, Relaxed);
    let outcome = handling(VECTOR, on_return, before_the_wrap);
    // SAFETY: this restores what was there before.
    unsafe {
        zero.write(interrupt_vectors);
        entry.write(firmware);
    }
    flush();
    line.item("wrap", format_args!("{}/{:#x}", Verdict(outcome), CAME_FROM.load(Relaxed)));
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
    // In compatibility mode the stack pointer has 32 bits, so the stack is used by its physical address.
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
        // Compatibility mode does not preserve the upper halves of the other registers.
        inout("rax") 0x8000_0000_u64 => _, out("rcx") _, out("rdx") _, out("rsi") _,
        out("r12") _, out("r13") _, out("r14") _, out("r15") _
    )
}
