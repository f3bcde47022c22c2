//! Executes an instruction with all general registers filled, and tells which it changed.

#![expect(unsafe_code, reason = "filling all registers takes assembly")]

use core::arch::naked_asm;
use core::fmt::{self, Display};

use crate::attempt::{Outcome, RECOVERY, taken};

/// The registers, in the order of their numbers. RSP keeps its own value; the last is RFLAGS.
const NAMES: [&str; 17] = [
    "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15",
    "rflags",
];

/// Index of RAX.
pub const RAX: usize = 0;
/// Index of RCX.
pub const RCX: usize = 1;
/// Index of RDX.
pub const RDX: usize = 2;
/// Index of RBX.
pub const RBX: usize = 3;
const RSP: usize = 4;
const RFLAGS: usize = 16;

/// The arithmetic flags, and the bit that is always set.
const FLAGS: u64 = 0x8d7;
const ALWAYS_SET: u64 = 2;

/// An instruction that leaves to a hypervisor, or would.
#[derive(Clone, Copy)]
pub enum Instruction {
    /// NOP, for comparison.
    Nop,
    /// CPUID.
    Cpuid,
    /// RDMSR.
    Rdmsr,
    /// WRMSR.
    Wrmsr,
    /// XSETBV.
    Xsetbv,
    /// INVD.
    Invd,
    /// VMCALL.
    Vmcall,
    /// VMMCALL.
    Vmmcall,
}

/// The registers that an instruction changed, as a set by number, and what they all hold now.
#[derive(Clone, Copy)]
pub struct Changes(u32, [u64; 17]);

impl Changes {
    /// Whether RAX, RBX, RCX and RDX have nothing in their upper halves, as CPUID leaves them.
    pub fn upper_halves_clear(&self) -> bool {
        [RAX, RBX, RCX, RDX].into_iter().all(|register| self.1[register] >> 32 == 0)
    }
}

/// Their names, or the exception that the instruction raised.
pub struct Changed(pub Outcome<Changes>);

impl Display for Changed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let changes = match self.0 {
            Ok(Changes(0, _)) => return f.write_str("none"),
            Ok(Changes(set, _)) => set,
            Err(fault) => return fault.fmt(f),
        };
        let mut separator = "";
        for (_, name) in NAMES.iter().enumerate().filter(|(index, _)| changes >> index & 1 == 1) {
            write!(f, "{separator}{name}")?;
            separator = ",";
        }
        Ok(())
    }
}

macro_rules! with_registers {
    ($($name:ident $variant:ident $instruction:literal,)*) => {
        $(
            /// Loads the registers from the array that RDI points to, executes the instruction, and stores them back.
            ///
            /// # Safety
            ///
            /// With these registers the instruction must leave memory, stack and modes as they are.
            #[unsafe(naked)]
            unsafe extern "C" fn $name(registers: *mut [u64; 17]) {
                naked_asm!(
                    "push rbx",
                    "push rbp",
                    "push r12",
                    "push r13",
                    "push r14",
                    "push r15",
                    "push rdi",
                    "push qword ptr [rdi + 16 * 8]",
                    "popfq",
                    "lea rax, [rip + 3f]",
                    "mov [rip + {recovery}], rax",
                    "mov [rdi + 4 * 8], rsp",
                    "mov rax, [rdi]",
                    "mov rcx, [rdi + 1 * 8]",
                    "mov rdx, [rdi + 2 * 8]",
                    "mov rbx, [rdi + 3 * 8]",
                    "mov rbp, [rdi + 5 * 8]",
                    "mov rsi, [rdi + 6 * 8]",
                    "mov r8, [rdi + 8 * 8]",
                    "mov r9, [rdi + 9 * 8]",
                    "mov r10, [rdi + 10 * 8]",
                    "mov r11, [rdi + 11 * 8]",
                    "mov r12, [rdi + 12 * 8]",
                    "mov r13, [rdi + 13 * 8]",
                    "mov r14, [rdi + 14 * 8]",
                    "mov r15, [rdi + 15 * 8]",
                    "mov rdi, [rdi + 7 * 8]",
                    $instruction,
                    "3:",
                    "pushfq",
                    "xchg rdi, [rsp + 8]",
                    "pop qword ptr [rdi + 16 * 8]",
                    "mov [rdi + 4 * 8], rsp",
                    "mov [rdi], rax",
                    "pop rax",
                    "mov [rdi + 7 * 8], rax",
                    "mov [rdi + 1 * 8], rcx",
                    "mov [rdi + 2 * 8], rdx",
                    "mov [rdi + 3 * 8], rbx",
                    "mov [rdi + 5 * 8], rbp",
                    "mov [rdi + 6 * 8], rsi",
                    "mov [rdi + 8 * 8], r8",
                    "mov [rdi + 9 * 8], r9",
                    "mov [rdi + 10 * 8], r10",
                    "mov [rdi + 11 * 8], r11",
                    "mov [rdi + 12 * 8], r12",
                    "mov [rdi + 13 * 8], r13",
                    "mov [rdi + 14 * 8], r14",
                    "mov [rdi + 15 * 8], r15",
                    "pop r15",
                    "pop r14",
                    "pop r13",
                    "pop r12",
                    "pop rbp",
                    "pop rbx",
                    "ret",
                    recovery = sym RECOVERY,
                )
            }
        )*

        /// Executes the instruction with the registers.
        ///
        /// # Safety
        ///
        /// With these registers the instruction must leave memory, stack and modes as they are.
        unsafe fn run(instruction: Instruction, registers: &mut [u64; 17]) {
            match instruction {
                // SAFETY: the function keeps to the calling convention, and the caller to the conditions.
                $(Instruction::$variant => unsafe { $name(registers) },)*
            }
        }
    };
}

with_registers! {
    nop Nop "nop",
    cpuid Cpuid "cpuid",
    rdmsr Rdmsr "rdmsr",
    wrmsr Wrmsr "wrmsr",
    xsetbv Xsetbv "xsetbv",
    invd Invd "invd",
    vmcall Vmcall "vmcall",
    vmmcall Vmmcall "vmmcall",
}

/// Executes the instruction with the inputs given as register and value, and a pattern in every other register.
pub fn execute(instruction: Instruction, inputs: &[(usize, u64)]) -> Outcome<Changes> {
    let mut registers = [0; 17];
    for (index, register) in registers.iter_mut().enumerate() {
        *register = 0x1111_1111_1111_1111_u64.wrapping_mul(index as u64 + 1) ^ 0x8000_0001_0000_0000;
    }
    registers[RFLAGS] = FLAGS | ALWAYS_SET;
    for (index, value) in inputs {
        registers[*index] = *value;
    }
    let before = registers;
    // SAFETY: the caller chooses instruction and inputs so that the machine goes on; a fault is recovered from, and
    // no instruction of the list writes memory.
    unsafe { run(instruction, &mut registers) };
    RECOVERY.store(0, core::sync::atomic::Ordering::Relaxed);
    taken()?;
    let mut changes = 0;
    for index in (0..NAMES.len()).filter(|index| *index != RSP) {
        changes |= u32::from(registers[index] != before[index]) << index;
    }
    Ok(Changes(changes, registers))
}
