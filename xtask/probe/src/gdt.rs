//! The flat segments of CPL 0 and CPL 3, and the task-state segment, which has the stack for the way back from CPL 3.

#![expect(unsafe_code, reason = "descriptor tables are given to the CPU by address")]

use core::arch::asm;

/// The selector of the 64-bit code segment of CPL 0.
pub const KERNEL_CODE: u16 = 0x08;
/// The selector of the data segment of CPL 0.
pub const KERNEL_DATA: u16 = 0x10;
/// The selector of the data segment of CPL 3.
pub const USER_DATA: u16 = 0x18 | 3;
/// The selector of the 64-bit code segment of CPL 3.
pub const USER_CODE: u16 = 0x20 | 3;
/// The selector of the 32-bit code segment of CPL 0.
pub const KERNEL_CODE_32: u16 = 0x38;
const TASK: u16 = 0x28;

/// The index of the interrupt stack that the double-fault handler runs on.
pub const STACK_OF_DOUBLE_FAULT: u64 = 1;

const STACK_SIZE: usize = 16 * 1024;

#[repr(C, align(16))]
struct Stack([u8; STACK_SIZE]);

/// The stack for interrupts and exceptions at CPL 3.
static mut STACK_OF_CPL0: Stack = Stack([0; STACK_SIZE]);
static mut STACK_OF_DOUBLE_FAULTS: Stack = Stack([0; STACK_SIZE]);

/// The first port that the I/O permission bitmap of [`open_port`] does not have.
const PORTS: usize = 0xd00;
/// The words of four bytes in the task-state segment, without a bitmap.
const WORDS: usize = 26;

/// The 64-bit task-state segment, with room for a bitmap and the byte that has to follow it.
static mut TSS: [u32; WORDS + PORTS / 32 + 1] = [0; WORDS + PORTS / 32 + 1];

static mut GDT: [u64; 8] = [
    0,
    0x00af_9b00_0000_ffff,
    0x00cf_9300_0000_ffff,
    0x00cf_f300_0000_ffff,
    0x00af_fb00_0000_ffff,
    0,
    0,
    0x00cf_9b00_0000_ffff,
];

/// The operand of LGDT and LIDT.
#[repr(C, packed)]
pub struct Pointer {
    /// The size of the table in bytes, minus one.
    pub limit: u16,
    /// The address of the table.
    pub base: u64,
}

/// Loads this descriptor table in place of the entry code's, and loads the task register.
pub fn init() {
    let (tss, gdt) = (&raw mut TSS, &raw mut GDT);
    let base = tss as u64;
    let cpl0 = (&raw const STACK_OF_CPL0).wrapping_add(1) as u64;
    let double_fault = (&raw const STACK_OF_DOUBLE_FAULTS).wrapping_add(1) as u64;
    // SAFETY: only one CPU runs, and nothing uses the statics yet. RSP0 is at byte 4 of the TSS, and IST1 is at byte
    // 36. Byte 102 holds the offset of the I/O bitmap: an offset beyond the limit means that there is none.
    unsafe {
        ((*tss)[1], (*tss)[2]) = (cpl0 as u32, (cpl0 >> 32) as u32);
        ((*tss)[9], (*tss)[10]) = (double_fault as u32, (double_fault >> 32) as u32);
        (*tss)[WORDS - 1] = 104 << 16;
        (*gdt)[5] = 103 | base_low(base) | 0x89 << 40;
        (*gdt)[6] = base >> 32;
    }
    let pointer = Pointer { limit: 8 * 8 - 1, base: gdt as u64 };
    // SAFETY: the selectors that the entry code has loaded select equal descriptors in this table.
    unsafe {
        asm!("lgdt [{}]", in(reg) &raw const pointer, options(readonly, nostack, preserves_flags));
        asm!("ltr {:x}", in(reg) TASK, options(nostack, preserves_flags));
    }
}

/// Gives CPL 3 the right to use one port below [`PORTS`]: adds an I/O permission bitmap to the task-state segment, and
/// loads the task register again.
pub fn open_port(port: u16) {
    let (tss, gdt) = (&raw mut TSS, &raw mut GDT);
    // SAFETY: only one CPU runs, and no task switch is under way. The CPU reads the descriptor when the task register
    // is loaded, which takes an available segment.
    unsafe {
        (WORDS..WORDS + PORTS / 32 + 1).for_each(|word| (*tss)[word] = u32::MAX);
        (*tss)[WORDS + usize::from(port / 32)] &= !(1 << (port % 32));
        let limit = 4 * (WORDS + PORTS / 32 + 1) as u64 - 1;
        (*gdt)[5] = limit | base_low(tss as u64) | 0x89 << 40;
        asm!("ltr {:x}", in(reg) TASK, options(nostack, preserves_flags));
    }
}

/// Returns the low 32 bits of a segment base, at their places in a descriptor.
const fn base_low(base: u64) -> u64 {
    (base & 0xff_ffff) << 16 | (base >> 24 & 0xff) << 56
}
