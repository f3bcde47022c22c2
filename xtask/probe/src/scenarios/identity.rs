//! The answers of CPUID.

use core::fmt::{self, Display};

use vidar_abi::SIGNATURE_LEAF;

use crate::cpu::cpuid as leaf;
use crate::line::Line;

struct Registers([u32; 4]);

impl Display for Registers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [eax, ebx, ecx, edx] = self.0;
        write!(f, "{eax:x}:{ebx:x}:{ecx:x}:{edx:x}")
    }
}

/// Reads the leaves that Vidar changes, as EAX:EBX:ECX:EDX, and names the bits of interest.
pub fn cpuid(line: &mut Line) {
    let one = leaf(1, 0);
    let extended = leaf(0x8000_0001, 0);
    line.item("vmx", one[2] >> 5 & 1);
    line.item("smx", one[2] >> 6 & 1);
    line.item("svm", extended[2] >> 2 & 1);
    line.item("skinit", extended[2] >> 12 & 1);
    line.item("hypervisor", one[2] >> 31);
    for (number, subleaf) in [(0, 0), (1, 0), (7, 0), (0xd, 0), (0xd, 1), (0x8000_0000, 0), (0x8000_0001, 0)] {
        // The top byte of EBX in leaf 1 is the APIC ID, which is always the same on a machine with one CPU.
        line.item(format_args!("{number:x}.{subleaf:x}"), Registers(leaf(number, subleaf)));
    }
    for number in [SIGNATURE_LEAF, SIGNATURE_LEAF + 1, SIGNATURE_LEAF + 2, 0x8000_000a] {
        line.item(format_args!("{number:x}"), Registers(leaf(number, 0)));
    }
    let mut signature = [0; 12];
    for (bytes, register) in signature.chunks_exact_mut(4).zip(&leaf(SIGNATURE_LEAF, 0)[1..]) {
        bytes.copy_from_slice(&register.to_le_bytes());
    }
    let text = core::str::from_utf8(&signature).unwrap_or("").trim_end_matches('\0');
    line.item("signature", if text.bytes().all(|byte| byte.is_ascii_graphic()) { text } else { "" });
}
