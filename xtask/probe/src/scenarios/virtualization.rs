//! The instructions of VT-x, SMX and AMD-V, which raise #UD in a guest that does not have these extensions.

#![expect(unsafe_code, reason = "the instructions under test exist only as assembly")]

use crate::attempt::{Verdict, attempt};
use crate::line::Line;

/// Executes the instructions of VT-x and SMX. CR4.VMXE and CR4.SMXE are clear, and under Vidar they cannot be set.
pub fn vmx(line: &mut Line) {
    // The operand of all instructions. A CPU that raises #UD does not read it.
    let operand = [0_u64; 2];
    let pointer = &raw const operand;
    macro_rules! show {
        ($name:literal, $($instruction:literal),+) => {
            line.item($name, Verdict(attempt!($($instruction),+; out("rax") _, out("rcx") _, in("rdx") pointer)));
        };
    }
    show!("vmxon", "vmxon [rdx]");
    show!("vmxoff", "vmxoff");
    show!("vmclear", "vmclear [rdx]");
    show!("vmptrld", "vmptrld [rdx]");
    show!("vmptrst", "vmptrst [rdx]");
    show!("vmread", "xor eax, eax", "vmread rcx, rax");
    show!("vmwrite", "xor eax, eax", "vmwrite rax, rcx");
    show!("vmlaunch", "vmlaunch");
    show!("vmresume", "vmresume");
    show!("invept", "mov eax, 1", "invept rax, [rdx]");
    show!("invvpid", "mov eax, 1", "invvpid rax, [rdx]");
    show!("vmfunc", "xor eax, eax", "xor ecx, ecx", "vmfunc");
    line.item("getsec", Verdict(attempt!("xchg rbx, {rbx}", "xor eax, eax", "getsec", "99:", "xchg rbx, {rbx}";
        rbx = inout(reg) 0_u64 => _, out("rax") _)));
}

/// Executes the instructions of AMD-V, with EFER.SVME clear.
pub fn svm(line: &mut Line) {
    macro_rules! show {
        ($name:literal, $instruction:literal) => {
            line.item($name, Verdict(attempt!($instruction; inout("rax") 0_u64 => _, in("ecx") 0)));
        };
    }
    show!("vmrun", "vmrun rax");
    show!("vmload", "vmload rax");
    show!("vmsave", "vmsave rax");
    show!("stgi", "stgi");
    show!("clgi", "clgi");
    show!("skinit", "skinit eax");
    show!("invlpga", "invlpga rax, ecx");
}
