//! XD Bit Disable in IA32_MISC_ENABLE, which turns off no-execute pages.

use crate::attempt::{Verdict, rdmsr, wrmsr};
use crate::cpu::cpuid;
use crate::line::Line;

const IA32_MISC_ENABLE: u32 = 0x1a0;
const XD_DISABLE: u64 = 1 << 34;
const IA32_EFER: u32 = 0xc000_0080;
const NXE: u64 = 1 << 11;

/// Sets the bit and clears it again. Each item has the outcome of the write, the bit as it is read, the bit NX of
/// CPUID, and the outcomes of writing EFER with and without NXE.
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
            format_args!("{}/{reads}/nx:{nx}/nxe:{}/other:{}", Verdict(wrote), Verdict(enable), Verdict(other)),
        );
    }
    // Both could be read, so they can be restored.
    let _ = (wrmsr(IA32_MISC_ENABLE, start), wrmsr(IA32_EFER, efer));
}
