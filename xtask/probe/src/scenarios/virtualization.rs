//! The instructions of VT-x, SMX and AMD-V, which a guest without them finds undefined.

#![expect(unsafe_code, reason = "the instructions under test exist only as assembly")]

use crate::attempt::{Shown, attempt};
use crate::line::Line;

/// VT-x and SMX, with CR4.VMXE and CR4.SMXE clear as they must be under Vidar.
pub fn vmx(line: &mut Line) {
    // Operand of all: a physical address for some, a descriptor for others, never looked at by a CPU that says #UD.
    let operand = [0_u64; 2];
    let pointer = &raw const operand;
    macro_rules! show {
        ($name:literal, $($instruction:literal),+) => {
            line.item($name, Shown(attempt!($($instruction),+; out("rax") _, out("rcx") _, in("rdx") pointer)));
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
    line.item("getsec", Shown(attempt!("xchg rbx, {rbx}", "xor eax, eax", "getsec", "99:", "xchg rbx, {rbx}";
        rbx = inout(reg) 0_u64 => _, out("rax") _)));
}

/// AMD-V, with EFER.SVME clear.
pub fn svm(line: &mut Line) {
    macro_rules! show {
        ($name:literal, $instruction:literal) => {
            line.item($name, Shown(attempt!($instruction; inout("rax") 0_u64 => _, in("ecx") 0)));
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
