//! The bits of EFER that the guest may set on AMD-V.
//!
//! Vidar takes them from CPUID, and does not try them with WRMSR. VMRUN fails if EFER of the guest has a bit set that
//! the CPU lacks, and a hypervisor below Vidar may allow a bit in WRMSR but not in VMRUN. AMD APM Vol. 2, 3.1.7
//! "Extended Feature Enable Register (EFER)" and 15.5.1 "Basic Operation", canonicalization and consistency checks.

use crate::x86::cpuid::Leaf;

/// A register in which CPUID returns a value.
#[derive(Debug, Clone, Copy)]
enum Output {
    Eax,
    Ebx,
    Ecx,
    Edx,
}

/// The number of a bit of EFER, and the CPUID bit of the feature that it enables: leaf, register and number of the bit.
struct Row {
    efer: u32,
    leaf: u32,
    output: Output,
    bit: u32,
}

const fn row(efer: u32, leaf: u32, output: Output, bit: u32) -> Row {
    Row { efer, leaf, output, bit }
}

/// The bits that software may set. Vidar controls SVME and the CPU controls LMA, so neither is here. LMSLE (bit 13) is
/// not here either: CPUID Fn8000_0008_EBX\[20\] reports its absence, but no bit reports its presence.
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

/// Returns the bits of EFER that the guest may set. `cpuid` executes CPUID with subleaf 0.
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

    /// Returns the CPUID of a CPU that has all features and whose highest extended leaf is `highest`.
    fn all(highest: u32) -> impl Fn(u32) -> Leaf {
        move |leaf| {
            let ones = Leaf { eax: !0, ebx: !0, ecx: !0, edx: !0 };
            if leaf == 0x8000_0000 { Leaf { eax: highest, ..ones } } else { ones }
        }
    }

    #[test]
    fn a_cpu_with_all_features_allows_all_bits() {
        assert_eq!(allowed(all(0x8000_0021)), 0x36_c901);
        assert_eq!(allowed(all(0x8000_0008)), 0x6_c901, "no leaf 80000021H");
        assert_eq!(allowed(|_| Leaf { eax: 0x8000_0021, ..Leaf::default() }), 0);
    }

    #[test]
    fn bits_that_vmrun_refuses_are_never_allowed() {
        // A hypervisor below may allow LMSLE in WRMSR although the CPU lacks it, and CPUID does not report it.
        for highest in [0x8000_0001, 0x8000_0008, 0x8000_0021, u32::MAX] {
            assert_eq!(allowed(all(highest)) & (LMSLE | EFER_SVME | EFER_LMA), 0);
        }
    }

    #[test]
    fn each_bit_is_allowed_by_its_own_feature() {
        let cpuid = |leaf| match leaf {
            0x8000_0000 => Leaf { eax: 0x8000_0020, ..Leaf::default() },
            0x8000_0001 => Leaf { ecx: 1 << 17, edx: 1 << 11 | 1 << 20 | 1 << 29, ..Leaf::default() },
            0x8000_0008 => Leaf { ebx: 1 << 13, ..Leaf::default() },
            _ => Leaf { eax: !0, ebx: !0, ecx: !0, edx: !0 },
        };
        assert_eq!(allowed(cpuid), SCE | EFER_LME | EFER_NXE | 1 << 15 | 1 << 18);
    }
}
