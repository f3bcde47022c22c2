//! EFER on AMD-V: which bits the guest may set.
//!
//! CPUID decides, never a trial. What RDMSR and WRMSR let through says nothing about VMRUN, which refuses a guest whose EFER
//! has a bit that the CPU lacks: a hypervisor below Vidar may judge the two by different rules. AMD APM Vol. 2, 3.1.7
//! "Extended Feature Enable Register (EFER)" and 15.5.1 "Basic Operation", canonicalization and consistency checks.

use crate::x86::cpuid::Leaf;

/// A register that CPUID returns.
#[derive(Debug, Clone, Copy)]
enum Output {
    Eax,
    Ebx,
    Ecx,
    Edx,
}

/// A bit of EFER, and the CPUID bit of the feature that it enables: leaf, register, bit.
struct Row {
    efer: u32,
    leaf: u32,
    output: Output,
    bit: u32,
}

const fn row(efer: u32, leaf: u32, output: Output, bit: u32) -> Row {
    Row { efer, leaf, output, bit }
}

/// The bits that software may set. SVME is Vidar's and LMA is the CPU's, so neither is here. LMSLE (bit 13) is refused:
/// CPUID Fn8000_0008_EBX\[20\] tells where it is gone, but nothing tells where it exists.
const ROWS: [Row; 9] = [
    row(0, 0x8000_0001, Output::Edx, 11),  // SCE: SYSCALL and SYSRET
    row(8, 0x8000_0001, Output::Edx, 29),  // LME: long mode
    row(11, 0x8000_0001, Output::Edx, 20), // NXE: no-execute pages
    row(14, 0x8000_0001, Output::Edx, 25), // FFXSR: fast FXSAVE and FXRSTOR
    row(15, 0x8000_0001, Output::Ecx, 17), // TCE: translation cache extension
    row(17, 0x8000_0008, Output::Ebx, 8),  // MCOMMIT
    row(18, 0x8000_0008, Output::Ebx, 13), // INTWB: WBINVD and WBNOINVD can be interrupted
    row(20, 0x8000_0021, Output::Eax, 7),  // UAIE: upper address bits are ignored
    row(21, 0x8000_0021, Output::Eax, 8),  // AIBRSE: automatic IBRS
];

/// The bits of EFER that a CPU whose CPUID is `cpuid` lets the guest set.
pub fn allowed(cpuid: impl Fn(u32) -> Leaf) -> u64 {
    let highest = cpuid(0x8000_0000).eax;
    let has = |row: &&Row| {
        let leaf = if row.leaf <= highest { cpuid(row.leaf) } else { Leaf::default() };
        let value = match row.output {
            Output::Eax => leaf.eax,
            Output::Ebx => leaf.ebx,
            Output::Ecx => leaf.ecx,
            Output::Edx => leaf.edx,
        };
        value & 1 << row.bit != 0
    };
    ROWS.iter().filter(has).fold(0, |all, row| all | 1 << row.efer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::x86::msr::{EFER_LMA, EFER_LME, EFER_NXE, EFER_SVME};

    const SCE: u64 = 1;
    const LMSLE: u64 = 1 << 13;

    /// A CPU with all features, whose highest extended leaf is this.
    fn all(highest: u32) -> impl Fn(u32) -> Leaf {
        move |leaf| {
            let ones = Leaf { eax: !0, ebx: !0, ecx: !0, edx: !0 };
            if leaf == 0x8000_0000 { Leaf { eax: highest, ..ones } } else { ones }
        }
    }

    #[test]
    fn every_feature_has_its_bit() {
        assert_eq!(allowed(all(0x8000_0021)), 0x36_c901);
        assert_eq!(allowed(all(0x8000_0008)), 0x6_c901, "no leaf 80000021H");
        assert_eq!(allowed(|_| Leaf { eax: 0x8000_0021, ..Leaf::default() }), 0);
    }

    #[test]
    fn what_vmrun_refuses_is_never_allowed() {
        // The hypervisor below takes LMSLE in WRMSR whether the CPU has it or not, and says nothing in CPUID.
        for highest in [0x8000_0001, 0x8000_0008, 0x8000_0021, u32::MAX] {
            assert_eq!(allowed(all(highest)) & (LMSLE | EFER_SVME | EFER_LMA), 0);
        }
    }

    #[test]
    fn features_decide_one_by_one() {
        let cpuid = |leaf| match leaf {
            0x8000_0000 => Leaf { eax: 0x8000_0020, ..Leaf::default() },
            0x8000_0001 => Leaf { ecx: 1 << 17, edx: 1 << 11 | 1 << 20 | 1 << 29, ..Leaf::default() },
            0x8000_0008 => Leaf { ebx: 1 << 13, ..Leaf::default() },
            _ => Leaf { eax: !0, ebx: !0, ecx: !0, edx: !0 },
        };
        assert_eq!(allowed(cpuid), SCE | EFER_LME | EFER_NXE | 1 << 15 | 1 << 18);
    }
}
