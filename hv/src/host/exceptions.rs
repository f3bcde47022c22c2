//! Vidar's own exceptions: the IDT, its entry stubs, and the handler.
//!
//! Interrupts stay off while Vidar runs, so only faults, NMIs and machine checks arrive here. An NMI belongs to the
//! guest and is kept for it. So is a machine check after which Vidar can continue. After a fault in an instruction that
//! has a fix-up, execution continues at the fix-up. Any other exception is a bug in Vidar and panics.

#![expect(unsafe_code, reason = "naked entry stubs and the IDT are here")]

use core::arch::naked_asm;
use core::fmt;
use core::mem::offset_of;

use spin::Once;
use vidar_core::vmm::percpu::{PerCpu, pending};
use vidar_core::x86::machine_check::{self, Banks, Owner};
use x86_64::VirtAddr;
use x86_64::registers::control::Cr2;
use x86_64::structures::idt::InterruptDescriptorTable;

use crate::arch::segments::Ist;
use crate::arch::{fixup, msr, percpu};
use crate::debug::panic;

/// What the CPU and the entry stubs push onto the stack at an exception.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct ExceptionFrame {
    /// R15 to R8, RBP, RDI, RSI, RDX, RCX, RBX, RAX: the register that is pushed last comes first.
    pub registers: [u64; 15],
    /// The vector of the exception.
    pub vector: u64,
    /// The error code, or 0 for an exception without one.
    pub error_code: u64,
    /// RIP. The CPU pushes this field and those after it.
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

impl fmt::Display for ExceptionFrame {
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

/// The code between the entry assembly's last check for pending events and VM entry. If the handler of an event
/// returned into it, the guest would be entered without the event. So the handler returns to `abort` instead.
#[derive(Debug, Clone, Copy)]
pub struct EntryWindow {
    /// The first address of the window.
    pub start: u64,
    /// The first address after the window.
    pub end: u64,
    /// The address to which the handler returns after an event in the window.
    pub abort: u64,
}

/// The code around VM entry, if a backend has one into which handlers must not return.
static WINDOW: Once<EntryWindow> = Once::new();
/// The IDT, which all CPUs use.
static IDT: Once<InterruptDescriptorTable> = Once::new();

/// Tells the handler where VM entry is. A backend does so before its first entry; later calls have no effect.
pub fn set_entry_window(window: EntryWindow) {
    WINDOW.call_once(|| window);
}

/// Returns the linear address of the IDT, or 0 before the first [`load`].
pub fn idt_address() -> u64 {
    IDT.get().map_or(0, |idt| &raw const *idt as u64)
}

/// Builds the IDT at the first call, and loads it on this CPU, whose [`Segments`](crate::arch::segments::Segments) must
/// be loaded.
pub fn load() {
    IDT.call_once(build).load();
}

/// Returns an IDT with a stub for every exception of the CPU.
fn build() -> InterruptDescriptorTable {
    let mut idt = InterruptDescriptorTable::new();
    // SAFETY: each stub is set for its own vector and knows whether the CPU pushes an error code, and the interrupt
    // stacks exist once the segments are loaded.
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

/// The entry point for one vector. It pushes 0 if the CPU pushes no error code, so that the stack looks the same for
/// every vector.
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

/// Saves the registers, calls [`exception`], and restores the registers. The CPU aligns the stack before it pushes its
/// five words. With the two words of the stub and these fifteen it is aligned again, as a call requires.
///
/// Only an NMI returns by IRET. IRET ends the blocking of NMIs, and on AMD-V the blocking may be the guest's, whose NMI
/// handler has not returned yet. Any other exception came from code with the same segments, so only RIP, RFLAGS and RSP
/// have to be restored. RIP and RFLAGS are written below the interrupted stack pointer and popped from there.
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
        vector = const offset_of!(ExceptionFrame, vector),
        rip = const offset_of!(ExceptionFrame, rip),
        rflags = const offset_of!(ExceptionFrame, rflags),
        rsp = const offset_of!(ExceptionFrame, rsp),
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
/// The error code of the security exception for an INIT that VM_CR.R_INIT has redirected. AMD APM Vol. 2, 8.2.23
/// "#SX-Security Exception (Vector 30)".
const REDIRECTED_INIT: u64 = 1;

/// Handles the exception that `frame` describes. The stub returns to `frame.rip`, which this function may change.
extern "C" fn exception(frame: &mut ExceptionFrame) {
    match frame.vector as u8 {
        NMI => keep(frame, PerCpu::note_nmi),
        GENERAL_PROTECTION | PAGE_FAULT if let Some(landing) = fixup::landing(frame.rip) => {
            frame.rip = landing;
        }
        // The exception has taken the pending INIT off the CPU, which is its only purpose.
        SECURITY if frame.error_code == REDIRECTED_INIT => {}
        MACHINE_CHECK => machine_check(frame),
        vector => panic!("exception {vector} (error code {:#x}) in Vidar: {frame}", frame.error_code),
    }
}

/// Keeps the machine check for the guest if Vidar can continue after it. The guest's handler then finds everything in
/// the CPU's registers. Otherwise Vidar reports it and ends. The other CPUs are not stopped in either case: they may be
/// meeting in the guest's handler for the same error.
fn machine_check(frame: &mut ExceptionFrame) {
    let banks = Banks::new(msr::read_checked);
    let has_guest = percpu::current().is_some_and(PerCpu::takes_machine_checks);
    match machine_check::owner(banks.status(), has_guest) {
        Owner::Guest => keep(frame, |cpu| cpu.add_pending(pending::MACHINE_CHECK)),
        Owner::Vidar => panic::machine_check(&banks, frame),
    }
}

/// Has `note` keep an event for the guest. If it came after the entry assembly's last check for pending events, the
/// entry is aborted.
fn keep(frame: &mut ExceptionFrame, note: impl FnOnce(&PerCpu)) {
    if let Some(cpu) = percpu::current() {
        note(cpu);
    }
    if let Some(window) = WINDOW.get()
        && (window.start..window.end).contains(&frame.rip)
    {
        frame.rip = window.abort;
    }
}
