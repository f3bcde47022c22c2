//! Vidar's own exceptions: the IDT, its entry stubs, and what each means.
//!
//! Interrupts stay off while Vidar runs, so only faults, NMIs and machine checks arrive here. An NMI is the guest's and is
//! kept for it, and so is a machine check that Vidar can go on after; a fault in an instruction with a fix-up goes on there;
//! any other is a bug in Vidar and panics.

#![expect(unsafe_code, reason = "naked entry stubs and the IDT are here")]

use core::arch::naked_asm;
use core::fmt;
use core::mem::offset_of;

use spin::Once;
use vidar_core::vmm::percpu::{PerCpu, kept};
use vidar_core::x86::machine_check::{self, Banks, Owner};
use x86_64::VirtAddr;
use x86_64::registers::control::Cr2;
use x86_64::structures::idt::InterruptDescriptorTable;

use crate::arch::segments::Ist;
use crate::arch::{fixup, msr, percpu};
use crate::debug::panic;

/// What the entry stub leaves on the stack.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct Frame {
    /// R15 to R8, RBP, RDI, RSI, RDX, RCX, RBX, RAX, in the order of the pushes backwards.
    pub registers: [u64; 15],
    /// Vector of the exception.
    pub vector: u64,
    /// Its error code, or 0.
    pub error_code: u64,
    /// RIP, CS, RFLAGS, RSP, SS as the CPU pushed them.
    pub rip: u64,
    /// CS.
    pub cs: u64,
    /// RFLAGS.
    pub rflags: u64,
    /// RSP.
    pub rsp: u64,
    /// SS.
    pub ss: u64,
}

impl fmt::Display for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NAMES: [&str; 15] = [
            "r15", "r14", "r13", "r12", "r11", "r10", "r9", "r8", "rbp", "rdi", "rsi", "rdx", "rcx", "rbx",
            "rax",
        ];
        write!(
            f,
            "rip {:#x} rsp {:#x} rflags {:#x} cr2 {:#x}",
            self.rip,
            self.rsp,
            self.rflags,
            Cr2::read_raw()
        )?;
        NAMES.iter().zip(self.registers).try_for_each(|(name, value)| write!(f, " {name} {value:#x}"))
    }
}

/// Code that the handler of a kept event must not return into: between the last look at what is kept and VM entry.
/// It goes on at `abort` instead.
#[derive(Debug, Clone, Copy)]
pub struct EntryWindow {
    /// First address of the window.
    pub start: u64,
    /// First address after it.
    pub end: u64,
    /// Where an event in the window goes on.
    pub abort: u64,
}

static WINDOW: Once<EntryWindow> = Once::new();
static IDT: Once<InterruptDescriptorTable> = Once::new();

/// Tells the handler where VM entry is; a backend does so once, before its first entry.
pub fn set_entry_window(window: EntryWindow) {
    WINDOW.call_once(|| window);
}

/// Linear address of the IDT.
pub fn idt_address() -> u64 {
    IDT.get().map_or(0, |idt| &raw const *idt as u64)
}

/// Builds the IDT, once, and loads it on this CPU, whose [`Segments`](crate::arch::segments::Segments) must be loaded.
pub fn load() {
    IDT.call_once(build).load();
}

fn build() -> InterruptDescriptorTable {
    let mut idt = InterruptDescriptorTable::new();
    // SAFETY: each stub matches its vector and whether the CPU pushes an error code, and the IST stacks exist once
    // the segments are loaded.
    unsafe {
        macro_rules! set {
            ($($field:ident: $vector:literal $code:literal),*) => {
                $(idt.$field.set_handler_addr(VirtAddr::from_ptr(stub::<$vector, $code> as *const ()));)*
            };
        }
        set!(
            divide_error: 0 false, debug: 1 false, breakpoint: 3 false, overflow: 4 false,
            bound_range_exceeded: 5 false, invalid_opcode: 6 false, device_not_available: 7 false,
            invalid_tss: 10 true, segment_not_present: 11 true, stack_segment_fault: 12 true,
            general_protection_fault: 13 true, x87_floating_point: 16 false, alignment_check: 17 true,
            simd_floating_point: 19 false, virtualization: 20 false, cp_protection_exception: 21 true,
            security_exception: 30 true
        );
        macro_rules! set_with_stack {
            ($($field:ident: $vector:literal $code:literal $ist:ident),*) => {
                $(idt.$field.set_handler_addr(VirtAddr::from_ptr(stub::<$vector, $code> as *const ()))
                    .set_stack_index(Ist::$ist as u16);)*
            };
        }
        set_with_stack!(
            non_maskable_interrupt: 2 false Nmi, double_fault: 8 true DoubleFault,
            page_fault: 14 true PageFault, machine_check: 18 false MachineCheck
        );
    }
    idt
}

/// Entry of one vector: makes the stack the same whether the CPU pushed an error code or not.
#[unsafe(naked)]
extern "C" fn stub<const VECTOR: u8, const ERROR_CODE: bool>() {
    naked_asm!(
        ".if {error_code} == 0",
        "push 0",
        ".endif",
        "push {vector}",
        "jmp {common}",
        error_code = const ERROR_CODE as u8,
        vector = const VECTOR,
        common = sym common,
    )
}

/// Saves the registers, calls [`exception`], restores them. The CPU aligned the stack before its five words; with the
/// stub's two and these fifteen it is aligned again, as a call wants it.
///
/// The way back is IRET for an NMI alone: IRET ends the blocking of NMIs, and on AMD-V that may be the guest's, which
/// is still in its handler. Any other exception came from code of the same segments, so RSP, RFLAGS and RIP are all
/// that changes: the last two are put where RSP is to be, and taken from there.
#[unsafe(naked)]
extern "C" fn common() {
    naked_asm!(
        "push rax",
        "push rbx",
        "push rcx",
        "push rdx",
        "push rsi",
        "push rdi",
        "push rbp",
        "push r8",
        "push r9",
        "push r10",
        "push r11",
        "push r12",
        "push r13",
        "push r14",
        "push r15",
        "cld",
        "mov rdi, rsp",
        "call {exception}",
        "cmp qword ptr [rsp + {vector}], {nmi}",
        "je 2f",
        "mov rax, [rsp + {rsp}]",
        "mov rbx, [rsp + {rip}]",
        "mov rcx, [rsp + {rflags}]",
        "mov [rax - 8], rbx",
        "mov [rax - 16], rcx",
        "sub rax, 16",
        "mov [rsp + {rip}], rax",
        "2: pop r15",
        "pop r14",
        "pop r13",
        "pop r12",
        "pop r11",
        "pop r10",
        "pop r9",
        "pop r8",
        "pop rbp",
        "pop rdi",
        "pop rsi",
        "pop rdx",
        "pop rcx",
        "pop rbx",
        "pop rax",
        "cmp qword ptr [rsp], {nmi}",
        "lea rsp, [rsp + 16]", // vector and error code
        "je 3f",
        "pop rsp",
        "popfq",
        "ret",
        "3: iretq",
        exception = sym exception,
        nmi = const NMI,
        vector = const offset_of!(Frame, vector),
        rip = const offset_of!(Frame, rip),
        rflags = const offset_of!(Frame, rflags),
        rsp = const offset_of!(Frame, rsp),
    )
}

/// Vector of the non-maskable interrupt.
const NMI: u8 = 2;
/// Vector of the machine check.
const MACHINE_CHECK: u8 = 18;
/// Vector of the general-protection fault.
const GENERAL_PROTECTION: u8 = 13;
/// Vector of the page fault.
const PAGE_FAULT: u8 = 14;
/// Vector of the security exception of AMD-V.
const SECURITY: u8 = 30;
/// Its error code for an INIT that VM_CR.R_INIT has redirected. AMD APM Vol. 2, 8.2.23 "#SX-Security Exception (Vector
/// 30)".
const REDIRECTED_INIT: u64 = 1;

extern "C" fn exception(frame: &mut Frame) {
    match frame.vector as u8 {
        NMI => keep(frame, kept::NMI),
        GENERAL_PROTECTION | PAGE_FAULT if let Some(landing) = fixup::landing(frame.rip) => {
            frame.rip = landing;
        }
        // Taken off the CPU, which is all that was wanted.
        SECURITY if frame.error_code == REDIRECTED_INIT => {}
        MACHINE_CHECK => machine_check(frame),
        vector => panic!("exception {vector} (error code {:#x}) in Vidar: {frame}", frame.error_code),
    }
}

/// One that Vidar can go on after is the guest's, whose handler finds all in the CPU's registers as they are. The other CPUs
/// are let be in any case: they may be meeting in the guest's handler over the same error.
fn machine_check(frame: &mut Frame) {
    let banks = Banks::new(msr::read_checked);
    let has_guest = percpu::current().is_some_and(PerCpu::takes_machine_checks);
    match machine_check::owner(banks.status(), has_guest) {
        Owner::Guest => keep(frame, kept::MACHINE_CHECK),
        Owner::Vidar => panic::machine_check(&banks, frame),
    }
}

/// The event is the guest's. If it came after the entry path's last look at what is kept, the entry is called off.
fn keep(frame: &mut Frame, event: u8) {
    if let Some(cpu) = percpu::current() {
        cpu.keep(event);
    }
    if let Some(window) = WINDOW.get()
        && (window.start..window.end).contains(&frame.rip)
    {
        frame.rip = window.abort;
    }
}
