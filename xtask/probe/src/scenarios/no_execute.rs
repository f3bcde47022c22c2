//! XD Bit Disable in IA32_MISC_ENABLE, which takes no-execute pages from software.

use crate::attempt::{Shown, rdmsr, wrmsr};
use crate::cpu::cpuid;
use crate::line::Line;

const IA32_MISC_ENABLE: u32 = 0x1a0;
const XD_DISABLE: u64 = 1 << 34;
const IA32_EFER: u32 = 0xc000_0080;
const NXE: u64 = 1 << 11;

/// Sets the bit and clears it again: each time what came of the write, whether the bit is there, whether CPUID has NX, and
/// what comes of enabling it.
pub fn disable(line: &mut Line) {
    let (Ok(start), Ok(efer)) = (rdmsr(IA32_MISC_ENABLE), rdmsr(IA32_EFER)) else { return line.word("none") };
    for (name, value) in [("disabled", start | XD_DISABLE), ("enabled", start & !XD_DISABLE)] {
        let wrote = wrmsr(IA32_MISC_ENABLE, value);
        let reads = rdmsr(IA32_MISC_ENABLE).is_ok_and(|value| value & XD_DISABLE != 0);
        let nx = cpuid(0x8000_0001, 0)[3] >> 20 & 1;
        let (enable, other) = (wrmsr(IA32_EFER, efer | NXE), wrmsr(IA32_EFER, efer & !NXE));
        let reads = u8::from(reads);
        line.item(
            name,
            format_args!("{}/{reads}/nx:{nx}/nxe:{}/other:{}", Shown(wrote), Shown(enable), Shown(other)),
        );
    }
    // What could be read may be written back.
    let _ = (wrmsr(IA32_MISC_ENABLE, start), wrmsr(IA32_EFER, efer));
}
