//! Registers that must have the same values before and after an exit.

#![expect(unsafe_code, reason = "debug registers are accessed by assembly")]

use core::arch::asm;

use crate::attempt::{Hex, keeping_cr4, rdmsr, set_cr4, wrmsr};
use crate::cpu::{self, cpuid};
use crate::line::Line;
use crate::registers::{ChangedNames, Instruction, RAX, RCX, RDX, execute};
use crate::vidar;

const CR4_OSXSAVE: u64 = 1 << 18;
const IA32_DEBUGCTL: u32 = 0x1d9;

/// Executes instructions, and names the general registers and flags that each changed.
pub fn regs(line: &mut Line) {
    let mut show = |name, instruction, inputs: &[(usize, u64)]| {
        line.item(name, ChangedNames(execute(instruction, inputs)));
    };
    show("nop", Instruction::Nop, &[]);
    // The upper halves are set, since the instruction must clear them.
    show("cpuid", Instruction::Cpuid, &[(RAX, 0xffff_ffff_8000_0000)]);
    show("rdmsr", Instruction::Rdmsr, &[(RCX, 0xffff_ffff_0000_003a)]);
    show("rdmsr-bad", Instruction::Rdmsr, &[(RCX, 0x5000_1234)]);
    let base = rdmsr(0x1b).unwrap_or(0);
    show("wrmsr", Instruction::Wrmsr, &[(RCX, 0x1b), (RAX, base & 0xffff_ffff), (RDX, base >> 32)]);
    show("invd", Instruction::Invd, &[]);
    if cpuid(1, 0)[2] >> 26 & 1 == 1 {
        keeping_cr4(|| {
            let _ = set_cr4(cpu::cr4() | CR4_OSXSAVE);
            show("xsetbv", Instruction::Xsetbv, &[(RCX, 0), (RAX, 1), (RDX, 0)]);
        });
    }
    let upper = match execute(Instruction::Cpuid, &[(RAX, 0xffff_ffff_8000_0000)]) {
        Ok(changes) if changes.upper_halves_clear() => "clear",
        _ => "not clear",
    };
    line.item("cpuid-upper-halves", upper);
}

macro_rules! debug_register {
    ($set:ident, $get:ident, $register:literal) => {
        fn $set(value: u64) {
            // SAFETY: nothing uses these addresses, so no breakpoint is ever hit.
            unsafe { asm!(concat!("mov ", $register, ", {}"), in(reg) value, options(nomem, nostack)) };
        }

        fn $get() -> u64 {
            let value: u64;
            // SAFETY: reading the register changes nothing.
            unsafe { asm!(concat!("mov {}, ", $register), out(reg) value, options(nomem, nostack)) };
            value
        }
    };
}

debug_register!(set_dr0, dr0, "dr0");
debug_register!(set_dr1, dr1, "dr1");
debug_register!(set_dr2, dr2, "dr2");
debug_register!(set_dr3, dr3, "dr3");
debug_register!(set_dr7, dr7, "dr7");

fn set_cr2(value: u64) {
    // SAFETY: the register only holds the address of the last page fault.
    unsafe { asm!("mov cr2, {}", in(reg) value, options(nomem, nostack)) };
}

/// Compares the debug registers, CR2 and IA32_DEBUGCTL before and after a thousand exits of several kinds.
pub fn debugregs(line: &mut Line) {
    /// Reads all of these registers but IA32_DEBUGCTL.
    fn all() -> [u64; 7] {
        [dr0(), dr1(), dr2(), dr3(), cpu::dr6(), dr7(), cpu::cr2()]
    }
    set_dr0(0x7000_0000_0001);
    set_dr1(0x7000_0000_1002);
    set_dr2(0x7000_0000_2004);
    set_dr3(0x7000_0000_3008);
    cpu::set_dr6(0xffff_0ff0 | 0x400a);
    set_cr2(0xdead_beef_0123_4567);
    // The breakpoints are on, with lengths and types that no hypervisor sets by itself.
    set_dr7(0x7155_07aa & !(1 << 13));
    let wrote = wrmsr(IA32_DEBUGCTL, 1).and_then(|()| rdmsr(IA32_DEBUGCTL));
    let before = all();
    for _ in 0..1000 {
        cpuid(0x8000_0000, 0);
    }
    for _ in 0..10 {
        let _ = rdmsr(0x3a);
        let _ = vidar::call(u64::MAX, 0, 0, 0);
    }
    let after = all();
    let debug_control = wrote.and_then(|_| rdmsr(IA32_DEBUGCTL));
    cpu::clear_dr7();
    cpu::set_dr6(0xffff_0ff0);
    let _ = wrmsr(IA32_DEBUGCTL, 0);
    for (index, name) in ["dr0", "dr1", "dr2", "dr3", "dr6", "dr7"].into_iter().enumerate() {
        let kept = if after[index] == before[index] { "kept" } else { "lost" };
        line.item(name, format_args!("{:#x}/{kept}", before[index]));
    }
    // On a bare machine VMCALL raises #UD, which does not change CR2 either.
    line.item("cr2", if after[6] == before[6] { "kept" } else { "lost" });
    line.item("debugctl", format_args!("{}/{}", Hex(wrote), Hex(debug_control)));
}
