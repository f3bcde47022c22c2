//! Executes an instruction with a pattern in all general registers, and finds out which of them it changes.

#![expect(unsafe_code, reason = "filling all registers takes assembly")]

use core::arch::naked_asm;
use core::fmt::{self, Display};

use crate::attempt::{Outcome, RECOVERY, taken};

/// The names of the general registers in the order of their numbers, and of RFLAGS. RSP gets no pattern.
const NAMES: [&str; 17] = [
    "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15",
    "rflags",
];

/// The index of RAX.
pub const RAX: usize = 0;
/// The index of RCX.
pub const RCX: usize = 1;
/// The index of RDX.
pub const RDX: usize = 2;
/// The index of RBX.
pub const RBX: usize = 3;
const RSP: usize = 4;
const RFLAGS: usize = 16;

/// The arithmetic flags of RFLAGS.
const FLAGS: u64 = 0x8d7;
/// The bit of RFLAGS that is always set.
const ALWAYS_SET: u64 = 2;

/// An instruction that a hypervisor may intercept.
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

/// The registers after an instruction.
#[derive(Clone, Copy)]
pub struct Changes {
    /// The registers that it changed: a bit for each, by its index.
    changed: u32,
    /// The values of all registers.
    values: [u64; 17],
}

impl Changes {
    /// Returns true if the upper halves of RAX, RBX, RCX and RDX are 0, as CPUID leaves them.
    pub fn upper_halves_clear(&self) -> bool {
        [RAX, RBX, RCX, RDX].into_iter().all(|register| self.values[register] >> 32 == 0)
    }
}

/// Formats the names of the registers that an instruction changed, or the exception that it raised.
pub struct ChangedNames(pub Outcome<Changes>);

impl Display for ChangedNames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let changed = match self.0 {
            Ok(Changes { changed: 0, .. }) => return f.write_str("none"),
            Ok(Changes { changed, .. }) => changed,
            Err(fault) => return fault.fmt(f),
        };
        let mut separator = "";
        for (_, name) in NAMES.iter().enumerate().filter(|(index, _)| changed >> index & 1 == 1) {
            write!(f, "{separator}{name}")?;
            separator = ",";
        }
        Ok(())
    }
}

macro_rules! with_registers {
    ($($name:ident $variant:ident $instruction:literal,)*) => {
        $(
            /// Loads the registers from the array that RDI points to, executes the instruction, and stores the
            /// registers in the same array.
            ///
            /// # Safety
            ///
            /// With these registers, the instruction must not change memory, the stack or the CPU's mode.
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

        /// Executes the instruction with these registers.
        ///
        /// # Safety
        ///
        /// With these registers, the instruction must not change memory, the stack or the CPU's mode.
        unsafe fn run(instruction: Instruction, registers: &mut [u64; 17]) {
            match instruction {
                // SAFETY: the function keeps to the calling convention, and the caller guarantees the rest.
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

/// Executes the instruction with a pattern in every register, but for the inputs, which are the index of a register and
/// its value.
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
    // SAFETY: no instruction of the list writes memory. Scenarios choose inputs with which the machine goes on, and the
    // probe recovers from a fault.
    unsafe { run(instruction, &mut registers) };
    RECOVERY.store(0, core::sync::atomic::Ordering::Relaxed);
    taken()?;
    let mut changed = 0;
    for index in (0..NAMES.len()).filter(|index| *index != RSP) {
        changed |= u32::from(registers[index] != before[index]) << index;
    }
    Ok(Changes { changed, values: registers })
}
